"""Publishing an exported folder as a repository of the hub."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from sid_jax.errors import UserError
from sid_jax.formats.exported_files import LIST
from sid_jax.formats.hub import is_repository_name
from sid_jax.runtime.storage.json_files import read_json
from sid_jax.runtime.storage.small_files import shown


def check_push(repository: str) -> None:
    """Checks that the hub can be reached and knows the user, before work that ends with `push`.

    Args:
      repository: ORGANISATION/NAME.

    Raises:
      UserError: it is no such name, there is no token or one that the hub does not take, or no network.
    """
    from huggingface_hub import HfApi, errors
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repository)
        valid = is_repository_name(repository)
    except errors.HFValidationError:
        valid = False
    if not valid:
        raise UserError(f"--push {shown(repository)}: write ORGANISATION/NAME, as the hub names repositories")
    with _naming(repository):
        HfApi().whoami()


def push(folder: Path, repository: str, *, private: bool = False) -> str:
    """Uploads what an export wrote into a folder, and nothing else that is there; returns the address of its page.

    Args:
      folder: that `export` wrote.
      repository: ORGANISATION/NAME, which is made if it is not there. Of an earlier model in it those files go that
        are in a folder of this one, such as `unet/`, and not in this one.
      private: whether it is made for its owners alone; one that is there stays as it is.

    Raises:
      UserError: the hub can't be reached, or does not let the user write there.
    """
    from huggingface_hub import HfApi

    files = [*read_json(folder / LIST), LIST]
    parts = sorted({name.partition("/")[0] for name in files if "/" in name})
    api = HfApi()
    with _naming(repository):
        page = api.create_repo(repository, private=private or None, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            allow_patterns=files,
            delete_patterns=[f"{part}/*" for part in parts],
            commit_message="Upload a student distilled by sid_jax",
        )
    return str(page)


@contextlib.contextmanager
def _naming(repository: str) -> Iterator[None]:
    """A context in which what the hub's client raises is one line that says what to do."""
    from huggingface_hub import errors

    def refused(reason: str) -> UserError:
        return UserError(f"--push {repository}: {reason}")

    try:
        yield
    except errors.LocalTokenNotFoundError as error:
        raise refused("no token of the hub is here; run `hf auth login`, or set HF_TOKEN") from error
    except errors.OfflineModeIsEnabled as error:
        raise refused("HF_HUB_OFFLINE is set; unset it, or export without --push") from error
    except errors.HfHubHTTPError as error:
        code = getattr(error.response, "status_code", None)
        if code == 401:
            reason = "the hub does not take the token; run `hf auth login`, or set HF_TOKEN to one that may write"
        elif code == 403:
            reason = "the hub's token may not write there; name a repository of your own, or take a token that may"
        else:
            reason = f"the hub refused it ({_first_line(error)})"
        raise refused(reason) from error
    except (errors.HTTPError, OSError) as error:  # HTTPError: of the client that the hub's uses
        raise refused(f"the hub can't be reached ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:300] if str(error) else type(error).__name__
