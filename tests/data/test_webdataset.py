"""Tar files of strangers: names of shards, files that are not whole, headers that lie."""

import io
import os
import resource
import tarfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from sid_jax.data.images import Corrupted
from sid_jax.data.sources.open import open_pairs
from sid_jax.data.sources.shards import find_shards
from sid_jax.errors import UserError

BLOCK = 512


def tar_of(count, caption=b"caption", suffix=".txt", first=0):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for number in range(first, first + count):
            for name, data in ((f"{number}.png", b"picture %d" % number), (f"{number}{suffix}", caption)):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return file.getvalue()


WHOLE = tar_of(8)
END = 8 * 4 * BLOCK  # where the zeros begin: of each pair, two headers and two blocks of content


def opened(path, data, size=None):
    path.write_bytes(data)
    if size:
        os.truncate(path, size)
    return open_pairs(str(path))


# ---- Names.


@pytest.fixture
def shards(tmp_path, monkeypatch):
    """A function from a folder's name and names of files in it to the folder, which the current one has."""
    monkeypatch.chdir(tmp_path)

    def make(folder, *names):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for name in names:
            (tmp_path / folder / name).write_bytes(tar_of(1))
        return folder

    return make


@pytest.mark.parametrize("folder", ["[v2]", "a*b", "what?", "back\\slash", "{a,b}", "{0..3}", "[!x]", "x/[y]/{z}"])
def test_a_folder_of_any_name(shards, tmp_path, folder):
    shards(folder, "0.tar", "1.tar")
    for start in (folder, f"./{folder}", f"{tmp_path}/{folder}"):
        assert len(open_pairs(f"{start}/0.tar")) == 1
        for pattern in ("*.tar", "?.tar", "[01].tar", "{0,1}.tar", "{0..1}.tar"):
            assert find_shards(f"{start}/{pattern}") == [f"{start}/0.tar", f"{start}/1.tar"]


def test_a_file_of_the_very_name_is_that_file(shards):
    shards(".", "a[1].tar", "a1.tar", "*.tar", "{1,2}.tar")
    for name in ("a[1].tar", "*.tar", "{1,2}.tar"):
        assert find_shards(name) == [name]


def test_braces_as_webdataset_has_them(shards):
    shards(".", *(f"{number:05d}.tar" for number in range(12)), "x-1.tar", "y-1.tar", "y-2.tar")
    shards("sub", "x-1.tar")
    assert len(find_shards("{00000..00011}.tar")) == 12
    assert find_shards("{00008..00010}.tar") == ["00008.tar", "00009.tar", "00010.tar"]
    assert find_shards("{x-1,y-{1..2}}.tar") == ["x-1.tar", "y-1.tar", "y-2.tar"]
    assert find_shards("{sub/x,y}-1.tar") == ["sub/x-1.tar", "y-1.tar"]
    assert find_shards("**/x-*.tar") == ["sub/x-1.tar", "x-1.tar"]
    assert find_shards("{x,y}-?.tar") == ["x-1.tar", "y-1.tar", "y-2.tar"]


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("{00000..00012}.tar", "there is no 00012.tar"),
        ("{x,z}.tar", "there is no z.tar"),
        ("{0..99999999999}.tar", "its braces name more than 100000 files"),
        ("{a," * 2000 + "}" * 2000 + ".tar", "more than 50 braces"),
        ("no[.tar", "there is no such file"),
        ("{x.tar", "no such file|not a folder"),
        ("a\0.tar", "no such file|no file can"),
        ("a\ud800.tar", "no such file|no file can"),
        ("x" * 5000 + ".tar", "there is no such file"),
    ],
)
def test_names_of_no_file(shards, pattern, problem):
    shards(".", *(f"{number:05d}.tar" for number in range(12)), "x.tar")
    with pytest.raises(UserError, match=problem) as caught:
        open_pairs(pattern)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 600


def test_what_is_no_file(shards, tmp_path):
    for name, make in {
        "folder": os.mkdir,
        "pipe": os.mkfifo,
        "zeros": lambda path: os.symlink("/dev/zero", path),
        "loop": lambda path: os.symlink(path, path),
    }.items():
        make(tmp_path / f"{name}.tar")
        with pytest.raises(UserError, match=rf"{name}\.tar.* (is a|can't be read)"):
            open_pairs(str(tmp_path / f"{name}.tar"))


def test_more_shards_than_files_may_be_open(shards):
    shards(".", *(f"{number}.tar" for number in range(40)))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = len(os.listdir("/proc/self/fd"))
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (taken + 20, before[1]))
        source = open_pairs("*.tar")
        with ThreadPoolExecutor(8) as threads:
            assert [pair.conditions for pair in threads.map(source.__getitem__, range(40))] == [("caption",)] * 40
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


# ---- Files that are not whole.


@pytest.mark.parametrize("cut", range(BLOCK, END + BLOCK, BLOCK))
def test_a_file_that_is_cut_is_refused_wherever_it_is_cut(tmp_path, cut):
    with pytest.raises(UserError, match=r"x\.tar is not a whole tar file"):
        opened(tmp_path / "x.tar", WHOLE[:cut])
    with pytest.raises(UserError, match=r"x\.tar is not a whole tar file"):
        opened(tmp_path / "x.tar", WHOLE[: cut - 7])


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_zeros_mark_an_end(tmp_path, blocks):
    """Two blocks of them, which are filled up to 20; of one, nothing is lost."""
    assert len(opened(tmp_path / "x.tar", WHOLE[: END + blocks * BLOCK])) == 8


def test_files_that_were_joined_are_read_as_one(tmp_path):
    source = opened(tmp_path / "x.tar", WHOLE + tar_of(2, first=8) + tar_of(1, first=10)[: 5 * BLOCK])
    assert [source[index].image for index in range(len(source))] == [b"picture %d" % number for number in range(11)]
    with pytest.raises(UserError, match="not a whole tar file"):
        opened(tmp_path / "x.tar", WHOLE + tar_of(2, first=8)[: 4 * BLOCK])


def test_damage_within_a_file_does_not_end_it(tmp_path):
    damaged = bytearray(WHOLE)
    damaged[8 * BLOCK + 150] ^= 1  # the checksum of the fifth header
    with pytest.raises(UserError, match=f"not a whole tar file .damaged at byte {8 * BLOCK}"):
        opened(tmp_path / "x.tar", damaged)
    with pytest.raises(UserError, match=f"damaged at byte {len(WHOLE)}"):
        opened(tmp_path / "x.tar", WHOLE + b"more" * 1000)


def test_endless_zeros_are_not_read_to_their_end(tmp_path):
    """As of a download whose room was reserved."""
    with pytest.raises(UserError, match="bytes after its end mark, of which the first 16777216 are zeros"):
        opened(tmp_path / "x.tar", WHOLE, size=2**40)


# ---- Headers that lie.


def header(kind, size, content=b""):
    member = tarfile.TarInfo("x")
    member.type, member.size = kind, size
    return member.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % BLOCK)


@pytest.mark.parametrize("kind", [b"L", b"K", b"x", b"g"])
def test_a_header_of_gigabytes_is_refused_by_its_size(tmp_path, kind, monkeypatch):
    with pytest.raises(UserError, match="a header of more than 1048576 bytes at byte 512"):
        opened(tmp_path / "x.tar", header(kind, 6 << 30), size=7 << 30)
    with pytest.raises(UserError, match="not a whole tar file"):
        opened(tmp_path / "x.tar", header(kind, 600))


@pytest.mark.parametrize(
    "content",
    [
        b"12 size=-99\n",
        b"99999 size=1\n",
        b"0 size=1\n",
        b"6000 size=" + b"1" * 5989 + b"\n",
        b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n",
    ],
)
@pytest.mark.parametrize("rest", [WHOLE, WHOLE[:BLOCK]])
def test_a_damaged_pax_header(tmp_path, content, rest):
    with pytest.raises(UserError, match="not a whole tar file"):
        opened(tmp_path / "x.tar", header(b"x", len(content), content) + rest)
    with pytest.raises(UserError, match="not a whole tar file"):  # and where zeros follow without end
        opened(tmp_path / "x.tar", header(b"x", len(content), content) + rest, size=2**33)


@pytest.mark.parametrize(
    ("suffix", "caption", "problem"),
    [
        (".txt", b"caf\xe9", "utf-8"),
        (".json", b"[" * 100_000, "not valid JSON"),
        (".json", b'{"caption": ["\\ud800"]}', "surrogate"),
        (".json", b'{"caption": 1}', "no string 'caption' or 'text'"),
        (".json", b'"caption"', "no JSON object"),
        (".json", b" " * (2**20 + 1), "a caption larger than 1048576"),
    ],
)
def test_captions_that_are_none(tmp_path, suffix, caption, problem):
    source = opened(tmp_path / "x.tar", tar_of(1, caption, suffix))
    with pytest.raises(Corrupted, match=problem):
        source[0]


def test_a_list_of_captions(tmp_path):
    source = opened(tmp_path / "x.tar", tar_of(1, b'{"caption": null, "text": [" a\\u2028b ", "c"]}', ".json"))
    assert source[0].conditions == ("a\u2028b", "c")


def test_a_file_that_is_replaced_meanwhile(tmp_path):
    source = opened(tmp_path / "x.tar", WHOLE)
    (tmp_path / "x.tar").write_bytes(WHOLE + WHOLE)
    with pytest.raises(UserError, match=r"x\.tar is another file than when it was opened"):
        source[0]
    (tmp_path / "x.tar").unlink()
    with pytest.raises(Corrupted, match="can't be read"):
        source[0]
