"""Who trains in a run's folder: one run at a time, which holds a file there until it ends, however it ends.

On a disk the file is locked (`flock`), and the lock ends with the process, also with one that was killed or whose
machine was taken away. Linux passes it to the server of an NFS, so that it counts on all hosts of one; other systems
may count it on one host alone. `lockf` would do the same there, but is lost as soon as the process closes the file
anywhere, and does not see a second run in the same process.

A bucket has no locks, and neither have some disks. There the file is written anew every `BEAT_SECONDS`, with another
number each time, and is left behind by a process that is killed. Who finds it watches for `SILENT_SECONDS` whether it
changes; clocks are not compared, since those of two hosts may differ.
"""

import contextlib
import datetime
import errno
import fcntl
import json
import logging
import os
import secrets
import socket
import stat
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from etils import epath

from sid_jax.errors import UserError
from sid_jax.runtime.devices import processes
from sid_jax.runtime.storage.files import is_remote, reaching, write_whole
from sid_jax.runtime.storage.json_files import parse_json, read_json

FILE = "owner.json"
BEAT_SECONDS = 20.0
SILENT_SECONDS = 90.0
_SETTLE_SECONDS = 2.0  # in which another start that came at the same moment has written too
_LARGEST = 10_000  # bytes
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def owning(workdir: epath.Path) -> Iterator[None]:
    """A context in which no other run can be in this context with the same folder; all processes of a run enter it.

    The first process holds the folder for all of them.

    Raises:
      UserError: another run is in the folder; one line says which.
    """
    with contextlib.ExitStack() as holding:
        refused: UserError | None = None
        if processes.is_first():
            try:
                holding.enter_context(_holding(workdir))
            except UserError as error:
                refused = error
        if jax.process_count() > 1 and processes.gather(refused is not None).any() and refused is None:
            refused = UserError(f"workdir {workdir} can't be had: the first process of this run says why")
        if refused is not None:
            raise refused
        yield


@contextlib.contextmanager
def _holding(workdir: epath.Path) -> Iterator[None]:
    file = workdir / FILE
    if is_remote(workdir):
        with _beating(file):
            yield
        return
    descriptor = _locked(file)
    if descriptor is None:
        with _beating(file):
            yield
        return
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, _about(_now()).encode(), 0)
    except OSError:  # on a full disk: the lock holds without words too
        pass
    try:
        yield
    finally:
        # Removed while it is still locked, so that it can't be that of a run that came after.
        with contextlib.suppress(OSError):
            if _is_still(descriptor, file):
                os.unlink(file)
        os.close(descriptor)


def _locked(file: epath.Path) -> int | None:
    """The descriptor of the file, locked; None where the disk has no locks."""
    while True:
        try:
            # Not followed if it is a link, and not waited for if it is a pipe.
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
        except OSError as error:
            raise UserError(
                f"{file} can't be opened ({error.strerror}): a run that has the folder notes it there"
            ) from error
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UserError(f"{file} is no regular file: remove it")
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still(descriptor, file):
                return descriptor
            os.close(descriptor)  # its owner has ended, and has removed it, since it was opened
        except OSError as error:
            content = os.pread(descriptor, _LARGEST, 0)
            os.close(descriptor)
            if error.errno in _NO_LOCKS:
                return None
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise _in_use(file, _read(content)) from None
            raise UserError(f"{file} can't be locked ({error.strerror})") from error
        except UserError:
            os.close(descriptor)
            raise


def _is_still(descriptor: int, file: epath.Path) -> bool:
    """Whether the file of that name is the open one."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(file))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _beating(file: epath.Path) -> Iterator[None]:
    """Holds the folder by writing the file again and again."""
    since, token, ended = _now(), secrets.token_hex(8), threading.Event()
    with reaching(file):
        _wait_until_silent(file)
        write_whole(file, _about(since, token))
        time.sleep(_SETTLE_SECONDS)
        found = _found(file)
        if found is not None and found.get("token") != token:
            raise _in_use(file, found)

    def beat() -> None:
        number = 0
        while not ended.wait(BEAT_SECONDS):
            number += 1
            try:
                found = _found(file)
                if found is not None and found.get("token") != token:
                    _log.warning("%s", _in_use(file, found))
                    return
                write_whole(file, _about(since, token, number))
            except Exception as error:  # the bucket is out of reach for a moment; the next one counts as well
                _log.debug("%s can't be written: %s", file, error)

    thread = threading.Thread(target=beat, daemon=True, name="owner of the workdir")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with contextlib.suppress(Exception):  # what can't be removed is silent from now on
            found = _found(file)
            if found is not None and found.get("token") == token:
                file.unlink()


def _wait_until_silent(file: epath.Path) -> None:
    """Returns when nobody has written the file for `SILENT_SECONDS`. Raises UserError as soon as somebody does."""
    first = _found(file)
    if first is None:
        return
    _log.warning(
        "%s is of %s: waiting up to %.0f s whether it still runs; a run that was killed left it behind",
        file,
        _who(first),
        SILENT_SECONDS,
    )
    until = time.monotonic() + SILENT_SECONDS
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, BEAT_SECONDS / 4))
        now = _found(file)
        if now is None:  # it has ended
            return
        if now != first:
            raise _in_use(file, now)


def _found(file: epath.Path) -> dict[str, Any] | None:
    """What the file says; None if there is none."""
    if not file.exists():
        return None
    try:
        return read_json(file, _LARGEST)
    except UserError:
        return {}


def _about(since: str, token: str = "", beat: int = 0) -> str:
    about: dict[str, Any] = {"host": socket.gethostname(), "pid": os.getpid(), "since": since}
    return json.dumps(about | ({"token": token, "beat": beat} if token else {}))


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def _read(content: bytes) -> dict[str, Any]:
    try:
        value = parse_json(content, FILE)
    except UserError:  # its owner is just writing it, or could not
        return {}
    return value if isinstance(value, dict) else {}


def _who(about: Mapping[str, Any]) -> str:
    host, pid, since = (" ".join(str(about.get(key, "unknown")).split())[:100] for key in ("host", "pid", "since"))
    return f"process {pid} on {host}, since {since}"


def _in_use(file: epath.Path, about: Mapping[str, Any]) -> UserError:
    return UserError(
        f"workdir {file.parent} is in use by {_who(about)}: wait until it has ended, end it, or use another --workdir"
    )
