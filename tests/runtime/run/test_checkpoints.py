import functools
import gc
import json
import logging
import os
import shutil
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sid_jax.errors import UserError
from sid_jax.runtime.run import manifest, readback
from sid_jax.runtime.run.checkpoints import Checkpoints, SaveError, abstract
from sid_jax.runtime.run.retention import Keep

# When a leaf can't be read, Orbax drops the reads of the others, and they complain when they are collected.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

CONFIG = {"seed": 3, "optimizer": {"fake_lr": 0.1}}
POSITION = {"iterator": {"next_index": 7}}

SAVED_ON_8_RESTORED_ON_OTHERS = """
import sys
import jax, numpy as np
from sid_jax.runtime.devices import mesh as meshes
from sid_jax.runtime.run.checkpoints import Checkpoints, abstract

host = {"w": np.random.default_rng(0).normal(size=(256, 512)).astype(np.float32), "b": np.arange(3, dtype=np.int32)}
eight = meshes.make_mesh(2, 4)
state = meshes.place(host, meshes.parameter_shardings(host, eight))
checkpoints = Checkpoints(sys.argv[1])
checkpoints.save(1, state, {}, {})
checkpoints.wait()

for data, fsdp, shape in ((1, 2, (256, 256)), (2, 1, (256, 512)), (8, 1, (256, 512)), (1, 8, (256, 64))):
    other = meshes.make_mesh(data, fsdp, devices=jax.devices()[: data * fsdp])
    restored = checkpoints.restore(abstract(state, meshes.parameter_shardings(host, other))).state
    assert {shard.data.shape for shard in restored["w"].addressable_shards} == {shape}
    assert len(restored["w"].addressable_shards) == data * fsdp
    assert all(np.asarray(restored[name]).tobytes() == host[name].tobytes() for name in host)
checkpoints.close()
"""


@pytest.fixture
def state():
    values = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
    values[0, :3] = np.nan, np.inf, -0.0
    return {
        "generator": {"w": jnp.asarray(values), "b": jnp.asarray(values[0], jnp.bfloat16)},
        "ema": [jnp.asarray(values + 1), None],
        "step": jnp.int32(5),
        "key": jax.random.key_data(jax.random.key(1)),
    }


@pytest.fixture(scope="module", autouse=True)
def quick_collections():
    """What is there before these tests is not looked through again after each of them."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def open_checkpoints(tmp_path):
    """Opens the checkpoints of the test's folder, and closes them at the end."""
    opened = []

    def open_folder(**options):
        opened.append(Checkpoints(tmp_path / "checkpoints", **options))
        return opened[-1]

    yield open_folder
    for checkpoints in opened:
        checkpoints.close()
    gc.collect()


def equal_to_the_bit(tree, other):
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True)
    return jax.tree.structure(tree) == jax.tree.structure(other) and all(
        a.dtype == b.dtype and np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs
    )


def save_steps(checkpoints, state, *steps):
    for step in steps:
        checkpoints.save(step, state | {"step": jnp.int32(step)}, POSITION | {"step": step}, CONFIG, {"loss": 0.5})
    checkpoints.wait()


def truncate(folder):
    for file in Path(folder).rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:20])


def test_what_is_restored_is_what_was_saved(open_checkpoints, state):
    checkpoints = open_checkpoints()
    assert checkpoints.latest() is None
    checkpoints.save(5, state, POSITION, CONFIG, {"loss": 0.5})
    checkpoints.wait()
    restored = open_checkpoints().restore(abstract(state))
    assert equal_to_the_bit(restored.state, state)
    assert (restored.step, restored.data_position, restored.metrics) == (5, POSITION, {"loss": 0.5})
    assert restored.config == CONFIG == checkpoints.config()


def test_the_state_may_be_donated_while_it_is_saved(open_checkpoints, state):
    @functools.partial(jax.jit, donate_argnums=0)
    def overwrite(tree):
        return jax.tree.map(lambda leaf: leaf * 0, tree)

    expected = jax.tree.map(np.array, state)
    shapes = abstract(state)
    checkpoints = open_checkpoints()
    checkpoints.save(1, state, POSITION, CONFIG)
    for _ in range(5):
        state = overwrite(state)
    jax.block_until_ready(state)
    checkpoints.wait()
    assert equal_to_the_bit(checkpoints.restore(shapes).state, expected)


def test_the_newest_are_kept(open_checkpoints, state, tmp_path):
    checkpoints = open_checkpoints(keep=2)
    save_steps(checkpoints, state, 1, 2, 3)
    checkpoints.close()
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["2", "3"]
    assert open_checkpoints(keep=2).latest() == 3


def test_saving_the_newest_step_again_does_nothing(open_checkpoints, state):
    checkpoints = open_checkpoints()
    save_steps(checkpoints, state, 4)
    checkpoints.save(4, state | {"step": jnp.int32(99)}, {}, CONFIG)
    assert checkpoints.restore(abstract(state)).state["step"] == 4


def test_a_part_is_restored_alone(open_checkpoints, state):
    checkpoints = open_checkpoints()
    save_steps(checkpoints, state, 1)
    part = {"generator": {"w": state["generator"]["w"]}}
    assert equal_to_the_bit(checkpoints.restore(abstract(part), partial=True).state, part)
    with pytest.raises(UserError, match=r"can be read \(1: KeyError: 'it lacks fake\.w'\)$"):
        checkpoints.restore(abstract({"fake": {"w": jnp.ones(3)}}), partial=True)


def test_one_that_cannot_be_read_is_moved_aside(open_checkpoints, state, tmp_path, caplog):
    save_steps(open_checkpoints(), state, 1, 2)
    folder = tmp_path / "checkpoints"
    truncate(folder / "2" / "state")
    checkpoints = open_checkpoints()
    with caplog.at_level(logging.WARNING, logger="sid_jax"):
        restored = checkpoints.restore(abstract(state))
    assert (restored.step, restored.state["step"], restored.data_position["step"]) == (1, 1, 1)
    assert f"checkpoint {folder / '2'} can't be read: " in caplog.text
    assert f"moved to {folder / 'unreadable-2'}" in caplog.text
    assert checkpoints.latest() == 1
    save_steps(checkpoints, state, 2, 3)
    assert open_checkpoints().restore(abstract(state)).step == 3


def test_a_reader_moves_and_deletes_nothing(open_checkpoints, state, tmp_path):
    save_steps(open_checkpoints(), state, 1, 2)
    truncate(tmp_path / "checkpoints" / "2")
    before = sorted(map(str, (tmp_path / "checkpoints").rglob("*")))
    reader = open_checkpoints(keep=1, read_only=True)
    assert reader.config() == CONFIG
    assert reader.restore(abstract(state)).step == 1
    assert sorted(map(str, (tmp_path / "checkpoints").rglob("*"))) == before


def test_none_that_can_be_read_is_an_error(open_checkpoints, state, tmp_path):
    reader = open_checkpoints(read_only=True)
    assert reader.latest() is None
    with pytest.raises(UserError, match=r"no checkpoint in .* can be read \(there is none\)"):
        reader.restore(abstract(state))
    assert not (tmp_path / "checkpoints").exists()
    save_steps(open_checkpoints(), state, 1)
    truncate(tmp_path / "checkpoints" / "1")
    with pytest.raises(UserError, match=r"no checkpoint in .* can be read \(1: "):
        open_checkpoints().restore(abstract(state))
    assert (tmp_path / "checkpoints" / "1").exists()


def test_other_shapes_are_an_error(open_checkpoints, state):
    checkpoints = open_checkpoints()
    save_steps(checkpoints, state, 1)
    with pytest.raises(UserError, match="can be read"):
        checkpoints.restore(abstract(state | {"step": jnp.zeros(3, jnp.int32)}))


def test_at_least_one_is_kept(open_checkpoints):
    with pytest.raises(UserError, match=r"^keep_checkpoints is 0: keep at least 1$"):
        open_checkpoints(keep=0)


def test_saved_on_8_devices_and_restored_on_other_meshes(eight_devices, tmp_path):
    eight_devices(SAVED_ON_8_RESTORED_ON_OTHERS, tmp_path)


def flip_a_bit(folder):
    largest = max((file for file in Path(folder).rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 4
    largest.write_bytes(content)


def delete_half(folder):
    for file in sorted(file for file in Path(folder).rglob("*") if file.is_file())[::2]:
        file.unlink()


@pytest.mark.parametrize(
    "damage, reason", [(flip_a_bit, "is not what was written"), (delete_half, "files are missing"), (truncate, "bytes")]
)
def test_a_damaged_one_is_left_for_the_one_before(open_checkpoints, state, tmp_path, caplog, damage, reason):
    save_steps(open_checkpoints(), state, 1, 2)
    damage(tmp_path / "checkpoints" / "2" / "state")
    with caplog.at_level(logging.WARNING, logger="sid_jax"):
        assert open_checkpoints().restore(abstract(state)).step == 1
    assert reason in caplog.messages[0]


def test_the_best_and_some_are_kept_over_several_starts(open_checkpoints, state, tmp_path):
    for steps in ((1, 2, 3), (4, 5, 6)):
        checkpoints = open_checkpoints(keep=Keep(1, every=4, best=1, metric="fid"))
        for step in steps:
            values = {"fid": abs(step - 2.0)} if step != 5 else {}
            checkpoints.save(step, state, POSITION, CONFIG, {"values": values})
        checkpoints.close()
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["2", "4", "6"]


def test_what_cannot_be_written_leaves_the_earlier_ones_and_saving_goes_on(open_checkpoints, state, monkeypatch):
    checkpoints = open_checkpoints()
    save_steps(checkpoints, state, 1)

    def fail(self, directory):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(manifest.ManifestHandler, "finalize", fail)
        checkpoints.save(2, state, POSITION, CONFIG)
        with pytest.raises(SaveError) as caught:
            checkpoints.wait()
    assert str(caught.value) == (
        "the checkpoint of update 2 can't be written: No space left on device; the newest is of update 1"
    )
    save_steps(checkpoints, state, 2)
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["1", "2"]
    assert checkpoints.restore(abstract(state)).step == 2


def leave_out(folder):
    (folder / "state" / "manifest.ocdbt").unlink()


def other_values(folder):
    """Puts another checkpoint in its place, which is whole."""
    shutil.rmtree(folder)
    shutil.copytree(folder.parent.parent / "other" / "1", folder)


@pytest.mark.parametrize(
    "damage, reason",
    [
        (truncate, "manifest is damaged"),
        (lambda folder: truncate(folder / "state"), " bytes and not "),
        (lambda folder: flip_a_bit(folder / "state"), "its checksum is another"),
        (leave_out, "files are missing"),
        (other_values, "step of its state is not what was saved"),
        (shutil.rmtree, "it has no manifest"),
    ],
)
def test_one_that_cannot_be_read_back_is_not_saved_and_the_earlier_ones_stay(tmp_path, monkeypatch, damage, reason):
    saved = {"step": jnp.int32(1), "w": jnp.ones(3)}
    check = readback.Readback.check
    with Checkpoints(tmp_path / "other") as other:
        other.save(1, saved | {"step": jnp.int32(9)}, POSITION, CONFIG)

    def broken(self, checkpoint):
        damage(Path(checkpoint))
        check(self, checkpoint)

    with Checkpoints(tmp_path / "a", keep=1) as checkpoints:
        checkpoints.save(1, saved, POSITION, CONFIG)
        checkpoints.wait()
        with monkeypatch.context() as patched:
            patched.setattr(readback.Readback, "check", broken)
            checkpoints.save(2, saved, POSITION, CONFIG)
            with pytest.raises(SaveError, match=f"can't be read back: .*{reason}.*; the newest is of update 1$"):
                checkpoints.wait()
        assert checkpoints.steps() == [1]
        assert checkpoints.restore(abstract(saved)).step == 1
        checkpoints.save(2, saved, POSITION, CONFIG)
        checkpoints.wait()
        assert [path.name for path in checkpoints.folder.iterdir()] == ["2"]


@pytest.mark.parametrize(
    "item, file, content, listed",
    [
        ("metrics", "metrics", b"{", False),
        ("metrics", "metrics", b"[" * 100_000, True),
        ("metrics", "metrics", b"\xff{}", True),
        ("metrics", "metrics", None, False),
        ("config", "metadata", b"[]", True),
        ("data", "metadata", b"[" * 100_000, True),
    ],
    ids=["cut", "deep", "not UTF-8", "huge", "a list", "deep data"],
)
def test_an_item_that_is_no_json_object_is_damage(open_checkpoints, state, tmp_path, item, file, content, listed):
    saved = {"step": state["step"]}
    for step in (1, 2):
        with Checkpoints(tmp_path / "checkpoints", keep=Keep(2, best=1, metric="fid")) as checkpoints:
            checkpoints.save(step, saved, POSITION, CONFIG, {"values": {"fid": 1.0}})
    checkpoint = tmp_path / "checkpoints" / "2"
    if content is None:
        os.truncate(checkpoint / item / file, 1 << 40)
    else:
        (checkpoint / item / file).write_bytes(content)
    if listed:  # as if it had been saved so
        about = json.loads((checkpoint / "manifest" / "metadata").read_text())
        about[f"{item}/{file}"] = len(content), zlib.crc32(content)
        (checkpoint / "manifest" / "metadata").write_text(json.dumps(about))
    reader = open_checkpoints(read_only=True, keep=Keep(2, best=1, metric="fid"))
    assert reader.restore(abstract(saved)).step == 1
    with Checkpoints(tmp_path / "checkpoints", keep=Keep(2, best=1, metric="fid")) as checkpoints:
        assert checkpoints.config() == CONFIG
        assert checkpoints.restore(abstract(saved)).step == 1
        assert checkpoints.steps() == [1]


def test_the_checkpoint_of_a_step(open_checkpoints, state, tmp_path):
    checkpoints = open_checkpoints(keep=3)
    save_steps(checkpoints, state, 1, 2, 3)
    assert checkpoints.steps() == [1, 2, 3]
    reader = open_checkpoints(read_only=True)
    assert reader.restore(abstract(state), step=2).state["step"] == 2
    with pytest.raises(UserError, match=r"has no checkpoint of update 4: there are those of 1, 2, 3$"):
        reader.restore(abstract(state), step=4)
    truncate(tmp_path / "checkpoints" / "2" / "state")
    with pytest.raises(UserError, match=r"no checkpoint in .* can be read \(2: "):
        reader.restore(abstract(state), step=2)


def test_one_that_cannot_be_deleted_is_told_and_saving_goes_on(open_checkpoints, state, monkeypatch, caplog):
    checkpoints = open_checkpoints(keep=1)
    saved = {"step": state["step"]}
    save_steps(checkpoints, saved, 1)
    rmtree = type(checkpoints.folder).rmtree

    def fail(self, missing_ok=False):
        if self.name == "1":
            raise OSError(1, "Operation not permitted")
        rmtree(self, missing_ok)

    with monkeypatch.context() as patched:
        patched.setattr(type(checkpoints.folder), "rmtree", fail)
        with caplog.at_level(logging.WARNING, logger="sid_jax"):
            save_steps(checkpoints, saved, 2)
    assert caplog.messages[-1] == (
        f"checkpoint {checkpoints.folder / '1'} can't be deleted: Operation not permitted; the run goes on"
    )
    assert checkpoints.steps() == [1, 2]
    save_steps(checkpoints, saved, 3)
    assert checkpoints.steps() == [3]
