"""Files that a reader finds whole or not at all, on a disk or in a bucket."""

import importlib.util
import os

from etils import epath

from sid_jax.errors import UserError


def is_remote(path: os.PathLike | str) -> bool:
    """Whether the path is in a bucket (gs://, s3://), where files are replaced as a whole and can't be appended to."""
    return "://" in os.fspath(path)


def absolute(path: os.PathLike | str) -> epath.Path:
    """The path, from the root of its disk or of its bucket.

    Raises:
        UserError: it is in a bucket, and what reads buckets is not installed.
    """
    if not is_remote(path):
        return epath.Path(path).expanduser().resolve()
    if os.fspath(path).startswith("gs://") and importlib.util.find_spec("gcsfs") is None:
        raise UserError(f"{os.fspath(path)} is in a bucket, which needs gcsfs: pip install gcsfs")
    return epath.Path(path)


def write_whole(path: os.PathLike | str, data: bytes | str) -> None:
    """Writes a file so that whoever reads it meanwhile, or after a crash, finds the old content or the new one."""
    file = epath.Path(path)
    data = data.encode() if isinstance(data, str) else data
    if is_remote(path):
        file.write_bytes(data)
        return
    partial = file.with_name(f".{file.name}.partial")
    partial.write_bytes(data)
    partial.replace(file)
