import json
import os
from collections import Counter

import numpy as np
import pytest

from sid_jax.data.prompts import read_prompt_file, read_prompts
from sid_jax.data.streams import ConditionStream
from sid_jax.errors import UserError

PROMPTS = [str(number) for number in range(10)]


def tokenize(prompts):
    return {"ids": np.array([[int(prompt), len(prompt)] for prompt in prompts], np.int32).reshape(-1, 2)}


def stream(prompts=PROMPTS, batch=3, seed=0, rows=None):
    return ConditionStream(prompts, batch, seed, tokenize, rows)


def numbers(iteration):
    return [*iteration["fake"]["ids"][:, 0].tolist(), *iteration["generator"]["ids"][:, 0].tolist()]


def drawn(source, count):
    return [numbers(next(source)) for _ in range(count)]


def test_a_file_has_a_prompt_a_line(tmp_path):
    file = tmp_path / "p.txt"
    file.write_bytes("\ufeffein Hund \r\n\n  une forêt\u2028claire\n猫\n".encode())
    assert read_prompt_file(str(file)) == ["ein Hund", "une forêt\u2028claire", "猫"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "does not exist"),
        (b"", "is empty: write one prompt a line"),
        (b" \n\t\n", "is empty: write one prompt a line"),
        (b"good\nb\0d\n", "has a NUL in line 2: is it text? convert it to UTF-8"),
        ("UTF-16\n".encode("utf-16-le"), "has a NUL in line 1: is it text? convert it to UTF-8"),
        (b"\xff\xfea", "begins as UTF-16 does, and is not: convert it to UTF-8"),
        (b"good\nbad \xff\n", "is not UTF-8 at line 2: convert it to UTF-8"),
    ],
)
def test_a_bad_file_is_an_error_of_one_line(tmp_path, content, problem):
    file = tmp_path / "p.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_prompt_file(str(file))
    assert str(caught.value) == f"prompts file {file} {problem}"


def test_a_folder_or_no_name_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"is a folder: name a text file with one prompt a line$"):
        read_prompt_file(str(tmp_path))
    with pytest.raises(UserError, match=r"^prompts is empty: set it to a text file"):
        read_prompt_file("")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_file_says_by_its_mark_how_it_is_encoded(encoding, tmp_path):
    """As Windows' programs write it."""
    (tmp_path / "p.txt").write_bytes("ein Hund\r\n\u732b\r\n".encode(encoding))
    assert read_prompt_file(str(tmp_path / "p.txt")) == ["ein Hund", "\u732b"]


def test_what_is_no_text_file_is_refused_in_a_line(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zeros.txt").symlink_to("/dev/zero")
    with (tmp_path / "large.txt").open("wb") as file:
        file.truncate(2**40)
    (tmp_path / "endless.txt").write_text("x" * 200_000)
    for name, problem in {
        "pipe": "is a named pipe, not a regular file",
        "zeros.txt": "is a device, not a regular file",
        "large.txt": "1099511627776 bytes is too large: at most 1073741824 are read",
        "endless.txt": "line 1 has 200000 letters, a prompt at most 100000",
        "a\0.txt": "does not exist",
        "a\ud800.txt": "does not exist",
        "x" * 5000 + ".txt": "File name too long",
    }.items():
        with pytest.raises(UserError) as caught:
            read_prompts(f"{tmp_path}/{name}")
        assert problem in str(caught.value) and str(caught.value).isprintable() and len(str(caught.value)) < 600
    with pytest.raises(UserError, match="is not UTF-8"):
        read_prompts("a caf\udce9")  # as Python spells a byte of a terminal's Latin-1


def test_a_folder_is_not_taken_for_a_prompt(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts").mkdir()
    with pytest.raises(UserError, match="prompts file prompts is a folder: name a text file"):
        read_prompts("prompts")


def test_the_argument_is_a_file_or_the_prompt_itself(tmp_path):
    file = tmp_path / "prompts"
    file.write_text("a cat\na dog\n")
    assert read_prompts(str(file)) == ["a cat", "a dog"]
    assert read_prompts("a cat / a dog") == ["a cat / a dog"]
    assert read_prompts("a cat " * 1000) == ["a cat " * 1000]
    assert read_prompts("") == [""]
    with pytest.raises(UserError, match=r"missing\.txt does not exist$"):
        read_prompts(str(tmp_path / "missing.txt"))


def test_an_iteration_has_two_independent_batches():
    first = next(stream(batch=5))
    assert first["fake"]["ids"].shape == first["generator"]["ids"].shape == (5, 2)
    assert first["fake"]["ids"].dtype == np.int32
    assert sorted(numbers(first)) == list(range(10))


def test_every_epoch_has_each_prompt_once_in_an_order_of_its_own():
    values = np.concatenate(drawn(stream(batch=1), 15)).reshape(3, 10)
    assert all(sorted(epoch) == list(range(10)) for epoch in values.tolist())
    assert len({tuple(epoch) for epoch in values.tolist()}) == 3


def test_fewer_prompts_than_a_batch():
    values = np.concatenate(drawn(stream(PROMPTS[:2], batch=4), 3)).tolist()
    assert Counter(values) == {0: 12, 1: 12}
    assert drawn(stream(PROMPTS[:1], batch=2), 1) == [[0, 0, 0, 0]]


def test_the_order_follows_from_the_seed():
    assert drawn(stream(seed=5), 8) == drawn(stream(seed=5), 8)
    assert drawn(stream(seed=5), 8) != drawn(stream(seed=6), 8)
    drawn(stream(seed=-1), 1)
    drawn(stream(seed=2**40), 1)


def test_a_restored_position_goes_on_exactly():
    whole = stream(seed=2)
    drawn(whole, 7)  # into the fifth epoch
    position = json.loads(json.dumps(whole.position()))
    expected = drawn(whole, 9)
    fresh = stream(seed=2)
    fresh.restore(position)
    assert drawn(fresh, 9) == expected
    used = stream(seed=2)
    drawn(used, 20)
    used.restore(position)
    assert drawn(used, 9) == expected


def test_a_position_of_other_prompts_is_refused():
    with pytest.raises(UserError, match="the prompts are not those that this run was started with"):
        stream(PROMPTS[:5]).restore(stream().position())


def test_hosts_share_the_batches_of_one_host():
    alone = stream(batch=4, seed=1)
    shares = [0, 3], [1, 2]
    hosts = [stream(batch=4, seed=1, rows=rows) for rows in shares]
    for _ in range(6):
        whole, parts = next(alone), [next(host) for host in hosts]
        for name in ("fake", "generator"):
            for rows, part in zip(shares, parts, strict=True):
                np.testing.assert_array_equal(whole[name]["ids"][rows], part[name]["ids"])
    assert hosts[0].position() == hosts[1].position() == alone.position()


def test_the_order_depends_on_all_bits_of_a_seed():
    seeds = (5, 2**31 + 5, 2**32 + 5, 2**63 + 5, 2**64 - 1)
    prompts = [str(number) for number in range(50)]
    assert len({str(drawn(stream(prompts, batch=10, seed=seed), 2)) for seed in seeds}) == len(seeds)


def test_an_address_is_a_file_and_a_sentence_with_one_is_a_prompt():
    for sentence in ("a corgi as on https://host/a", "https://host/a painted by hand", "x://y z"):
        assert read_prompts(sentence) == [sentence]
    for address in ("https://host/a", "x://y"):
        with pytest.raises(UserError, match=f"^{address}: of addresses only buckets can be opened"):
            read_prompts(address)
