"""The one exception that a user's own input may cause."""


class UserError(Exception):
    """Bad input: a config, a flag, a file or a folder that a user gave.

    The message is one line that says what is wrong, where, and what to do. Commands print it and exit
    with code 2; everything else that is raised is a defect of ours and keeps its traceback.
    """
