"""Small files of strangers: what is read, and what is refused in one line, at once and without memory."""

import contextlib
import json
import os
import resource
import socket
import subprocess
import sys

import pytest
from etils import epath

from sid_jax.errors import UserError
from sid_jax.runtime.storage.json_files import MOST_NESTED, parse_json, read_json
from sid_jax.runtime.storage.small_files import Unreadable, read_lines, read_small_bytes, read_small_text, shown


def make_pipe(path):
    os.mkfifo(path)


def make_socket(path):
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as listening:  # names of sockets are short
        listening.bind(path.name)


def make_loop(path):
    path.symlink_to(path)


def make_link_to_zeros(path):
    path.symlink_to("/dev/zero")


def make_large(path):
    with path.open("wb") as file:
        file.truncate(2**40)


def make_below_a_file(path):
    path.parent.rmdir()
    path.parent.write_text("")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.mkdir(), "is a folder, not a regular file"),
        (make_pipe, "is a named pipe, not a regular file"),
        (make_socket, "is a socket, not a regular file"),
        (make_link_to_zeros, "is a device, not a regular file"),
        (make_loop, r"cannot be read \(Too many levels of symbolic links\)"),
        (make_below_a_file, r"cannot be read \(Not a directory\)"),
        (make_large, "1099511627776 bytes is too large: at most 67108864 are read"),
    ],
)
def test_what_is_no_small_file_is_refused_in_a_line(make, reason, tmp_path):
    path = tmp_path / "folder/x.json"
    path.parent.mkdir()
    make(path)
    for read in (read_small_bytes, read_small_text, read_json):
        with pytest.raises(UserError, match=rf"^{path}: {reason}$"):
            read(path)


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    (tmp_path / "x").write_text("x")

    def denied(*arguments):
        raise PermissionError(13, "Permission denied")  # root may read everything

    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(Unreadable, match=r"cannot be read \(Permission denied\)$"):
        read_small_bytes(tmp_path / "x")


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "a\ud800b", "x/" * 5000])
def test_names_that_no_file_can_have(name, tmp_path):
    with pytest.raises(Unreadable) as caught:
        read_small_bytes(f"{tmp_path}/{name}")
    message = str(caught.value)
    assert message.isprintable() and len(message) < 600


def test_a_file_that_states_no_size_is_read_to_the_limit_and_no_further():
    """As those of /proc do."""
    assert read_small_bytes("/proc/self/stat")
    with pytest.raises(Unreadable, match="11 bytes is too large: at most 10 are read"):
        read_small_bytes("/proc/self/stat", 10)


def test_text_is_utf8_with_or_without_its_mark(tmp_path):
    for content, text in ((b"\xef\xbb\xbfa\r\n", "a\r\n"), ("b\u2028".encode(), "b\u2028"), (b"", "")):
        (tmp_path / "x").write_bytes(content)
        assert read_small_text(tmp_path / "x") == text
    (tmp_path / "x").write_bytes("a\nb\u00e9".encode("latin-1"))
    with pytest.raises(Unreadable, match="is not UTF-8 at line 2: convert it to UTF-8"):
        read_small_text(tmp_path / "x")


def test_lines_end_at_line_feeds(tmp_path):
    (tmp_path / "x").write_bytes("a\u2028b\r\n\n\x0cc".encode())
    assert list(read_lines(tmp_path / "x", 10)) == [(1, "a\u2028b\r".encode()), (2, b""), (3, b"\x0cc")]
    with pytest.raises(Unreadable, match="line 1 is too large: at most 5 bytes are read"):
        list(read_lines(tmp_path / "x", 5))
    os.truncate(tmp_path / "x", 2**40)
    with pytest.raises(Unreadable, match="line 3 is too large"):
        list(read_lines(tmp_path / "x", 10))


def test_json_of_one_line_errors():
    assert parse_json("[" * MOST_NESTED + "]" * MOST_NESTED, "x")
    assert parse_json(b'\xef\xbb\xbf{"lambda_min_clipped": -Infinity}', "x") == {"lambda_min_clipped": float("-inf")}
    brackets_in_text = json.dumps(["[" * 200, '"[' * 200, "\\"] + [[]] * 200)  # which are no levels
    assert parse_json(brackets_in_text, "x")[:3] == ["[" * 200, '"[' * 200, "\\"]
    for text in (
        "NaN",
        '{"a": [NaN]}',
        "1" * 5000,
        "[" * 101 + "]" * 101,
        "[" + "[]," * 2**19 + "[" * 100 + "]" * 101,  # in two parts, as brackets are counted
        '{"a":' * 500 + "1" + "}" * 500,
        "",
        b"\xff",
    ):
        with pytest.raises(UserError, match=r"^here: not valid JSON") as caught:
            parse_json(text, "here")
        assert "\n" not in str(caught.value)


def test_very_deep_json_ends_no_interpreter():
    """Neither while it is parsed nor where the stack is small."""
    code = (
        "from sid_jax.errors import UserError\n"
        "from sid_jax.runtime.storage.json_files import parse_json\n"
        "for text in ('[' * 10**7, '{\"a\":' * 10**6, '[' * 10**6 + ']' * 10**6):\n"
        "    try: parse_json(text, 'x')\n"
        "    except UserError: print('refused')\n"
    )
    small = (2**20, resource.getrlimit(resource.RLIMIT_STACK)[1])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_STACK, small),
    )
    assert done.stdout.split() == ["refused"] * 3, done.stderr


def test_files_in_buckets(bucket, monkeypatch):
    file = epath.Path(f"{bucket}/x.json")
    file.write_bytes(b'{"a": 1}')
    assert read_json(file) == {"a": 1}
    assert list(read_lines(file, 100)) == [(1, b'{"a": 1}')]
    with pytest.raises(Unreadable, match=rf"^{file}: 8 bytes is too large: at most 2 are read$"):
        read_small_bytes(file, 2)
    with pytest.raises(Unreadable, match=r"y: no such file$") as caught:
        read_small_bytes(f"{bucket}/y")
    assert caught.value.missing

    def refused(*arguments):
        raise RuntimeError("401\nno token")  # gcsfs raises exceptions of its own

    monkeypatch.setattr(type(file), "stat", refused)
    with pytest.raises(Unreadable, match=r"x\.json: cannot be read \(RuntimeError: 401 no token\)$"):
        read_small_bytes(file)


def test_a_path_in_a_message_is_one_short_line():
    assert shown("a b/\u732b.txt") == "a b/\u732b.txt"
    assert shown("a\nb\x1b[2J\ud800") == "a\\nb\\x1b[2J\\ud800"
    assert len(shown("x" * 5000)) < 400
