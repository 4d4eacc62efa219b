"""The one exception that a user's own input may cause."""

import contextlib
from collections.abc import Iterator


class UserError(Exception):
    """Bad input: a config, a flag, a file or a folder that a user gave.

    The message is one line that says what is wrong, where, and what to do. Commands print it and exit
    with code 2; everything else that is raised is a defect of ours and keeps its traceback.
    """


@contextlib.contextmanager
def user_errors_from(source: str) -> Iterator[None]:
    """Turns a ValueError about a value into a UserError that names where the value is from."""
    try:
        yield
    except ValueError as error:
        raise UserError(f"{source}: {error}") from error


@contextlib.contextmanager
def errors_in(file: str) -> Iterator[None]:
    """Begins the message of each UserError with the file that its cause is in."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
