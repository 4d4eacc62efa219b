"""A teacher's name to a folder: the folder itself, or the files of a hub repository, fetched or cached."""

import contextlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from sid_jax.errors import UserError
from sid_jax.formats.model_card import CARD
from sid_jax.formats.weight_names import PICKLES, choose, has_variant, weight_names
from sid_jax.runtime.storage.files import is_remote
from sid_jax.runtime.storage.small_files import shown

INDEX = "model_index.json"  # of a pipeline

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_HUB_FILE = re.compile(rf"({_HUB_ID.pattern})/((?:[\w-][\w.-]*/)*[\w-][\w.-]*\.pkl)")


def locate(source: str, *, weights: Iterable[tuple[str, str]], variant: str = "", revision: str = "main") -> Path:
    """The folder of a pipeline.

    Args:
      source: a folder, or the id `organisation/name` of a hub repository.
      weights: (subfolder, stem) of the networks whose parameters are needed; of a repository nothing else of any
        size is fetched.
      variant: of the weights, such as "fp16".
      revision: branch, tag or commit of a repository.

    Raises:
      UserError: there is no such folder or repository, it cannot be reached, or it is a file or a folder of another
        kind.
    """
    if is_remote(source):
        raise UserError(f"{shown(source)}: models are read from folders on a disk, or by hub id: copy it, or mount it")
    weights = list(weights)
    try:
        folder = Path(source.removeprefix("file://")).expanduser()
        if folder.is_dir():
            _check_folder(folder, variant if weights else "")
            return folder
        if folder.exists():
            raise UserError(_not_a_folder(folder))
    except OSError as error:  # a name of thousands of letters, or a folder above that may not be looked into
        raise UserError(f"{shown(source)}: cannot be opened ({error.strerror or error})") from error
    except (ValueError, RuntimeError) as error:  # a NUL in it; the home of nobody
        raise UserError(f"{shown(source)}: no folder can have this name ({error})") from error
    if not _HUB_ID.fullmatch(source):
        raise UserError(f"{shown(source)}: no such folder")
    found = fetch_patterns(source, revision, patterns([]))
    if not weights:
        return found
    files = names_at(source, revision)
    if files is None:  # the hub is out of reach, and what is in the cache must do
        return fetch_patterns(source, revision, patterns(weights, variant))
    if variant and not has_variant([name.rpartition("/")[2] for name in files], variant):
        raise UserError(f"{source}: it has no weights of the variant {variant!r}")
    wanted: list[str] = []
    for subfolder, stem in weights:
        names = {name.removeprefix(f"{subfolder}/") for name in files if name.startswith(f"{subfolder}/")}
        _, chosen = choose(names, stem, variant, f"{source}/{subfolder}")
        wanted += patterns([(subfolder, stem)], chosen)
    return fetch_patterns(source, revision, wanted)


def is_hub_id(source: str) -> bool:
    """Whether a source is a repository of the hub, or a file of one, and not a folder or a file here."""
    if hub_file(source):
        return not Path(source).expanduser().exists()
    return is_repository_name(source) and not Path(source).expanduser().is_dir()


def is_repository_name(name: str) -> bool:
    """Whether a text is ORGANISATION/NAME, as the hub names repositories."""
    return bool(_HUB_ID.fullmatch(name))


def hub_file(source: str) -> tuple[str, str] | None:
    """The repository and the path in it that `organisation/name/path/to/file.pkl` names; None: it is no such name."""
    match = _HUB_FILE.fullmatch(source)
    return (match[1], match[2]) if match else None


def fetch_file(repository: str, name: str, revision: str = "main") -> Path:
    """One file of a hub repository, fetched or cached.

    Raises:
      UserError: there is no such file, or it cannot be had.
    """
    from huggingface_hub import hf_hub_download

    with _naming(f"{repository}/{name}", revision):
        return Path(hf_hub_download(repository, name, revision=revision))


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


def _check_folder(folder: Path, variant: str) -> None:
    """Refuses a folder that is one level off, and a variant that no network of it has.

    Raises:
      UserError: names the folder that is meant, where there is one.
    """
    if not (folder / INDEX).exists():
        inner = sorted(str(file.parent) for file in folder.glob(f"*/{INDEX}"))
        if (folder.absolute().parent / INDEX).is_file():
            raise UserError(f"{folder}: a part of a pipeline; name the folder above it, {folder.absolute().parent}")
        if (folder / "checkpoints").is_dir() and (folder / "config.json").is_file():
            raise UserError(f"{folder}: the folder of a run, not of a pipeline; export it, and name what is exported")
        single = sorted(
            file for file in folder.glob("*") if file.suffix in (".safetensors", ".ckpt") and file.is_file()
        )
        if single and not (folder / "unet").exists():
            raise UserError(f"{folder}: no {INDEX} in it; {_not_a_folder(single[0])}")
        if inner:
            raise UserError(f"{folder}: no {INDEX}; the pipeline is in a folder below it, {' or '.join(inner[:4])}")
    if variant and not has_variant([file.name for file in folder.glob("*/*")], variant):
        raise UserError(f"{folder}: it has no weights of the variant {variant!r}")


def _not_a_folder(file: Path) -> str:
    """What to do with a file where the folder of a pipeline is needed."""
    if file.name == INDEX:
        return f"{file}: a file of a pipeline; name its folder, {file.absolute().parent}"
    if file.suffix in (".safetensors", *PICKLES):
        return (
            f"{file}: a single file of weights, but a folder in the layout of diffusers is needed; PyTorch's diffusers "
            "makes one: open it with its pipeline's from_single_file(FILE), and write it with save_pretrained(FOLDER)"
        )
    return f"{file}: a file, but a folder in the layout of diffusers is needed"


def names_at(repository: str, revision: str) -> list[str] | None:
    """The names of the files of a repository; None where the hub does not say."""
    from huggingface_hub import errors, list_repo_files

    try:
        return list(list_repo_files(repository, revision=revision))
    except (errors.OfflineModeIsEnabled, errors.HTTPError, errors.HFValidationError, OSError):
        return None


def fetch_patterns(repository: str, revision: str, allow: list[str]) -> Path:
    """A folder with what glob patterns name of a repository, and with its card, which says the licence.

    Raises:
      UserError: there is no such repository, or it cannot be had.
    """
    # Imported here: neither is needed, nor their start-up time spent, where the teacher is a folder.
    from huggingface_hub import snapshot_download

    with _naming(repository, revision):
        return Path(snapshot_download(repository, revision=revision, allow_patterns=[*allow, CARD]))


@contextlib.contextmanager
def _naming(what: str, revision: str) -> Iterator[None]:
    """A context in which what the hub's client raises is one line that names the source."""
    from huggingface_hub import errors

    def unusable(reason: str) -> UserError:
        kind = "file" if hub_file(what) else "folder"
        return UserError(f"{what}: neither a {kind} here nor a repository that the hub gives us ({reason})")

    try:
        yield
    except errors.RevisionNotFoundError as error:
        raise unusable(f"it has no revision {revision!r}") from error
    except errors.GatedRepoError as error:
        raise unusable("accept its conditions on its page, then run `hf auth login`") from error
    except errors.RepositoryNotFoundError as error:
        raise unusable("no such repository, or it is private and `hf auth login` is needed") from error
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError) as error:
        raise unusable("the hub cannot be reached and the files are not in the cache") from error
    except errors.EntryNotFoundError as error:
        raise unusable("it has no such file") from error
    except (errors.HTTPError, errors.HFValidationError, OSError) as error:  # HTTPError: of the client it uses
        raise unusable(str(error).splitlines()[0] if str(error) else type(error).__name__) from error
