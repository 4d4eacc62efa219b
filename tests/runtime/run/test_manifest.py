"""A checkpoint's list of files: whatever is done to one of them is noticed."""

import json
import random
import shutil

import jax.numpy as jnp
import orbax.checkpoint as ocp
import pytest
from etils import epath

from sid_jax.runtime.run import manifest
from sid_jax.runtime.run.checkpoints import Checkpoints


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A checkpoint, not to be changed."""
    folder = tmp_path_factory.mktemp("saved")
    checkpoints = Checkpoints(folder)
    checkpoints.save(1, {"w": jnp.arange(5000.0), "b": jnp.ones(7)}, {"next": 3}, {"seed": 1})
    checkpoints.close()
    return folder / "1"


@pytest.fixture
def checkpoint(saved, tmp_path):
    """A copy of it, to be damaged."""
    return shutil.copytree(saved, tmp_path / "1")


def files(checkpoint):
    items = [entry for entry in checkpoint.iterdir() if entry.is_dir() and entry.name != manifest.ITEM]
    return sorted(file for item in items for file in item.rglob("*") if file.is_file())


def test_one_that_is_whole(saved):
    manifest.verify(saved)
    manifest.verify(saved, "config")
    listed = ocp.Checkpointer(manifest.ManifestHandler()).restore(saved / manifest.ITEM, manifest.ManifestRestore())
    assert {str(file.relative_to(saved)) for file in files(saved)} == set(listed)


def test_any_bit_that_changes_is_noticed(checkpoint):
    draw = random.Random(0)
    for file in files(checkpoint):
        content = file.read_bytes()
        for position in draw.sample(range(len(content)), min(len(content), 5)):
            changed = bytearray(content)
            changed[position] ^= 1 << draw.randrange(8)
            file.write_bytes(changed)
            with pytest.raises(ValueError, match=f"^{file.relative_to(checkpoint)} is not what was written"):
                manifest.verify(checkpoint)
        file.write_bytes(content)
    manifest.verify(checkpoint)


def test_what_is_cut_short_or_missing_is_named(checkpoint):
    config = checkpoint / "config" / "metadata"
    config.write_bytes(config.read_bytes()[:-3])
    with pytest.raises(ValueError, match=r"^config/metadata has 8 bytes and not 11$"):
        manifest.verify(checkpoint, "config")
    config.unlink()
    with pytest.raises(ValueError, match=r"^1 of its \d+ files are missing, such as config/metadata$"):
        manifest.verify(checkpoint)
    manifest.verify(checkpoint, "state")


@pytest.mark.parametrize(
    "content, expected", [(None, "has no manifest"), (b"{", "is damaged"), (b"[]", "is damaged"), (b"{}", "is damaged")]
)
def test_a_list_that_is_missing_or_damaged(checkpoint, content, expected):
    file = checkpoint / manifest.ITEM / "metadata"
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(ValueError, match=expected):
        manifest.verify(checkpoint)


def test_in_a_bucket_sizes_are_compared(checkpoint, bucket):
    copy = epath.Path(bucket) / "1"
    for file in (f for f in checkpoint.rglob("*") if f.is_file()):
        (copy / str(file.relative_to(checkpoint))).write_bytes(file.read_bytes())
    listed = {str(f.relative_to(checkpoint)): (f.stat().st_size,) for f in files(checkpoint)}
    (copy / manifest.ITEM / "metadata").write_text(json.dumps(listed))
    manifest.verify(copy)
    (copy / "config" / "metadata").write_text("{}")
    with pytest.raises(ValueError, match="has 2 bytes and not 11"):
        manifest.verify(copy)
