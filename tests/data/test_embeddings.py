import json
import os
import shutil

import ml_dtypes
import numpy as np
import pytest

from sid_jax.data.embeddings import open_embeddings, write_embeddings
from sid_jax.errors import UserError

PROMPTS = ["", "a cat", "a dog", "eine Katze"]
CONTEXT = np.linspace(-1, 1, 24).reshape(4, 3, 2).astype(ml_dtypes.bfloat16)
POOLED = np.arange(20, dtype=np.float32).reshape(4, 5)


def batches(size):
    for start in range(0, 4, size):
        rows = slice(start, start + size)
        yield {"context": CONTEXT[rows], "added": {"pooled": POOLED[rows]}}


@pytest.fixture
def folder(tmp_path):
    write_embeddings(tmp_path / "cache", batches(3), row_bytes=32, rows=4)
    return tmp_path / "cache"


def test_prompts_find_their_rows(folder):
    found = open_embeddings(folder, PROMPTS)(["a dog", "", "a dog"])
    assert found["context"].dtype == ml_dtypes.bfloat16 and found["added"]["pooled"].dtype == np.float32
    np.testing.assert_array_equal(found["context"], CONTEXT[[2, 0, 2]])
    np.testing.assert_array_equal(found["added"]["pooled"], POOLED[[2, 0, 2]])


def test_rows_are_mapped_and_not_read(folder):
    arrays = open_embeddings(folder, PROMPTS)._arrays.values()
    assert all(isinstance(array, np.memmap) and not array.flags.writeable for array in arrays)


def test_what_is_not_whole_is_not_there(folder):
    assert open_embeddings(folder.parent / "other", PROMPTS) is None
    assert open_embeddings(folder, PROMPTS[:3]) is None
    os.truncate(folder / "context.bin", 10)
    assert open_embeddings(folder, PROMPTS) is None
    (folder / "about.json").write_text("{}")
    assert open_embeddings(folder, PROMPTS) is None


@pytest.mark.parametrize(
    "arrays",
    [
        [],
        {"context": 1},
        {"context": ["object", [3, 1]]},
        {"context": ["bfloat16", [-3, -2]]},
        {"context": ["bfloat16", [3, 2.0]]},
        {"context": ["u2,f4", [3]]},
        {"../cache/context": ["bfloat16", [3, 2]]},
        {"context\0": ["bfloat16", [3, 2]]},
    ],
)
def test_what_describes_no_arrays_is_not_there(folder, arrays):
    (folder / "about.json").write_text(json.dumps({"rows": 4, "arrays": arrays}))
    assert open_embeddings(folder, PROMPTS) is None


def test_what_was_there_is_replaced(folder):
    os.truncate(folder / "context.bin", 10)
    write_embeddings(folder, batches(1), row_bytes=32, rows=4)
    np.testing.assert_array_equal(open_embeddings(folder, PROMPTS)(PROMPTS)["context"], CONTEXT)


def test_what_fails_leaves_nothing(tmp_path):
    def broken():
        yield from batches(2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_embeddings(tmp_path / "cache", broken(), row_bytes=32, rows=4)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 100))
    with pytest.raises(UserError, match=r"embeddings of 9000000000 prompts need 288.0 GB, 0.0 GB are free there"):
        write_embeddings(tmp_path / "cache", batches(2), row_bytes=32, rows=9_000_000_000)
    with pytest.raises(UserError, match=r"embeddings can't be written \(Not a directory\)"):
        (tmp_path / "file").write_text("")
        write_embeddings(tmp_path / "file" / "cache", batches(2), row_bytes=32, rows=4)
