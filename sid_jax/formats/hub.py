"""A teacher's name to a folder: the folder itself, or the files of a hub repository, fetched or cached."""

import re
from collections.abc import Iterable
from pathlib import Path

from sid_jax.errors import UserError
from sid_jax.formats.safetensors_files import weight_names

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def locate(source: str, *, weights: Iterable[tuple[str, str]], variant: str = "", revision: str = "main") -> Path:
    """The folder of a pipeline.

    Args:
      source: a folder, or the id `organisation/name` of a hub repository.
      weights: (subfolder, stem) of the networks whose parameters are needed; of a repository nothing else of any
        size is fetched.
      variant: of the weights, such as "fp16".
      revision: branch, tag or commit of a repository.

    Raises:
      UserError: there is no such folder or repository, or it cannot be reached.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if not _HUB_ID.fullmatch(source):
        raise UserError(f"{source}: no such folder")
    return _fetch(source, revision, patterns(weights, variant))


def patterns(weights: Iterable[tuple[str, str]], variant: str = "") -> list[str]:
    """Glob patterns of the files that `locate` fetches: configs and tokenizers, and the weights asked for."""
    wanted = ["model_index.json", "*/config.json", "scheduler/*.json", "tokenizer*/*.json", "tokenizer*/*.txt"]
    for subfolder, stem in weights:
        names = weight_names(stem, variant)
        if variant:
            names += (f"{stem}.{variant}-*-of-*.safetensors", f"{stem}-*-of-*.{variant}.safetensors")
        else:
            names += (f"{stem}-?????-of-?????.safetensors",)
        wanted += [f"{subfolder}/{name}" for name in names]
    return wanted


def _fetch(repository: str, revision: str, allow: list[str]) -> Path:
    # Imported here: neither is needed, nor their start-up time spent, where the teacher is a folder.
    from huggingface_hub import errors, snapshot_download

    def unusable(reason: str) -> UserError:
        return UserError(f"{repository}: neither a folder here nor a repository that the hub gives us ({reason})")

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=allow))
    except errors.RevisionNotFoundError as error:
        raise unusable(f"it has no revision {revision!r}") from error
    except errors.GatedRepoError as error:
        raise unusable("accept its conditions on its page, then run `hf auth login`") from error
    except errors.RepositoryNotFoundError as error:
        raise unusable("no such repository, or it is private and `hf auth login` is needed") from error
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError) as error:
        raise unusable("the hub cannot be reached and the files are not in the cache") from error
    except (errors.HTTPError, errors.HFValidationError, OSError) as error:  # HTTPError: of the client it uses
        raise unusable(str(error).splitlines()[0] if str(error) else type(error).__name__) from error
