"""What a run notes of itself in its folder, so that a later start can tell what is missing there or was replaced:

last_checkpoint.json   the update of the newest checkpoint that was completed
teacher.json           the fingerprints of the teacher that it is trained from
"""

import logging
import re
from collections.abc import Callable, Collection, Mapping

from etils import epath

from sid_jax.errors import UserError
from sid_jax.runtime.devices import processes
from sid_jax.runtime.storage.files import is_remote, reaching, write_whole
from sid_jax.runtime.storage.json_files import read_json, to_text
from sid_jax.runtime.storage.small_files import open_regular, read_small_bytes

CHECKPOINT, TEACHER = "last_checkpoint.json", "teacher.json"

_TAIL = 4 << 20  # bytes of run.log that are looked at
_ANEW = "beginning anew"
_SAVED = re.compile(rb" saved checkpoint (\d+) in ")

_log = logging.getLogger(__name__)


def note_checkpoint(workdir: epath.Path, step: int) -> None:
    """Notes that a checkpoint was completed; only the first process does.

    What can't be written is reported. The next one is noted again.
    """
    if not processes.is_first():
        return
    try:
        write_whole(workdir / CHECKPOINT, to_text({"step": step}))
    except OSError as error:
        _log.warning("%s can't be written: %s", workdir / CHECKPOINT, error.strerror or error)


def check_checkpoints_are_there(workdir: epath.Path, restart: bool = False) -> None:
    """Stops a run that would begin anew where it has had checkpoints, as when their disk is not mounted.

    A run that ended before its first checkpoint begins anew without a word.

    Args:
      workdir: the run's folder.
      restart: begin anew all the same.

    Raises:
      UserError: the checkpoints are gone; or with `restart` they are there, since nothing is deleted here.
    """
    folder = workdir / "checkpoints"
    with reaching(folder):
        there = folder.is_dir() and any(entry.name.isdigit() for entry in folder.iterdir())
        step = None if there else _noted(workdir)
    if there and restart:
        raise UserError(
            f"{folder} has checkpoints, and --resume=restart begins anew only where they are gone: "
            "use another --workdir, or delete them yourself"
        )
    if step is None:
        return
    gone = f"{workdir} had a checkpoint of update {step}, and {folder} {'has none' if folder.is_dir() else 'is gone'}"
    if not restart:
        raise UserError(
            f"{gone}: mount its disk or put it back, or use another --workdir, or --resume=restart to begin anew here"
        )
    _log.warning("%s, as --resume=restart asks: %s", _ANEW, gone)
    if processes.is_first():
        (workdir / CHECKPOINT).unlink(missing_ok=True)


def is_teacher_of_run(workdir: epath.Path, fingerprints: Mapping[str, str], force: bool = False) -> bool:
    """Whether a teacher is known to be the one that the run was trained from. All processes of a run call it.

    Args:
      workdir: the run's folder.
      fingerprints: of the teacher that is here now.
      force: report through logging that it is another.

    Returns:
      False where the run has no record of its teacher, being older than those, or where `force` lets it go on.

    Raises:
      UserError: it is another.
    """
    noted = _noted_teacher(workdir)
    if noted is None:
        return False
    other = _differing(noted, fingerprints)
    found = f"the teacher is not the one that the run in {workdir} was started from ({', '.join(other)} differ)"
    elsewhere = f"the teacher of the run in {workdir} is another on another host"
    if processes.gather(bool(other)).any():
        if not force:
            raise UserError(
                f"{found if other else elsewhere}: put that one back, or set teacher to where it is, or use another "
                "--workdir, or --resume=force to go on with this one"
            )
        if other:
            _log.warning("going on with another teacher, as --resume=force asks: %s differ", ", ".join(other))
        return False
    return True


def check_teacher_of_run(
    workdir: epath.Path, fingerprints: Callable[[], Mapping[str, str]], besides: Collection[str] = ()
) -> None:
    """Stops what would combine a run's student with another teacher than the run's.

    Args:
      workdir: the run's folder.
      fingerprints: makes those of the teacher that is here now; called where the run has a record of its own.
      besides: names that are not compared.

    Raises:
      UserError: the run has a record of its teacher, and it is another.
    """
    noted = _noted_teacher(workdir)
    other = [] if noted is None else [name for name in _differing(noted, fingerprints()) if name not in besides]
    if other:
        raise UserError(
            f"the teacher is not the one that the run in {workdir} was trained from ({', '.join(other)} differ): "
            "put that one back where the run's config.json says"
        )


def note_teacher(workdir: epath.Path, fingerprints: Mapping[str, str]) -> None:
    """Notes which teacher a run is trained from; only the first process does."""
    if processes.is_first():
        write_whole(workdir / TEACHER, to_text(fingerprints))


def _noted_teacher(workdir: epath.Path) -> Mapping[str, str] | None:
    """What `note_teacher` has written; None where a run is older than that."""
    file = workdir / TEACHER
    with reaching(file):
        try:
            return read_json(file) if file.exists() else None
        except UserError as error:
            raise UserError(f"{error}: delete it, and the run's teacher is not compared with the one here") from None


def _differing(noted: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    return sorted(name for name in {*noted, *found} if noted.get(name) != found.get(name))


def _noted(workdir: epath.Path) -> int | str | None:
    """The update of the last checkpoint that the run is known to have completed; None: of none is known."""
    file = workdir / CHECKPOINT
    if file.exists():
        try:
            return int(read_json(file)["step"])
        except (UserError, KeyError, TypeError, ValueError, OverflowError):
            return "(unknown)"
    # Runs of before there was this file say it in run.log alone.
    _, _, since = _tail(workdir / "run.log").rpartition(_ANEW.encode())
    said = _SAVED.findall(since)
    return int(said[-1]) if said else None


def _tail(log: epath.Path) -> bytes:
    if not log.exists():
        return b""
    if is_remote(log):
        return read_small_bytes(log)[-_TAIL:]
    with open_regular(log) as file:
        file.seek(max(0, file.seek(0, 2) - _TAIL))
        return file.read(_TAIL)
