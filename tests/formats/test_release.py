"""Files of a release: fetched whole and right, or not there."""

import functools
import hashlib
import http.server
import threading

import pytest

from sid_jax.errors import UserError
from sid_jax.formats.release import Unfetched, cache_folder, fetch

DATA = bytes(range(256)) * 20
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def server(tmp_path):
    """The address of a web server that has `a.bin`."""
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "a.bin").write_bytes(DATA)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    handler.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_a_file_is_fetched(server, tmp_path):
    fetch(f"{server}/a.bin", tmp_path / "a", DIGEST[:8], len(DATA))
    assert (tmp_path / "a").read_bytes() == DATA


def test_what_is_not_the_file_leaves_nothing(server, tmp_path):
    with pytest.raises(Unfetched, match=f"another SHA-256, {DIGEST}"):
        fetch(f"{server}/a.bin", tmp_path / "a", "0" * 8, len(DATA))
    with pytest.raises(Unfetched, match="more than 100 bytes come"):
        fetch(f"{server}/a.bin", tmp_path / "a", DIGEST, 100)
    with pytest.raises(Unfetched, match=r"b\.bin: HTTP Error 404"):
        fetch(f"{server}/b.bin", tmp_path / "a", DIGEST, 100)
    with pytest.raises(Unfetched, match="refused"):
        fetch("http://127.0.0.1:9/a.bin", tmp_path / "a", DIGEST, 100)
    assert not (tmp_path / "a").exists()
    with pytest.raises(UserError, match="cannot be written"):
        fetch(f"{server}/a.bin", tmp_path / "none" / "a", DIGEST, len(DATA))


def test_where_the_cache_is(tmp_path, monkeypatch):
    monkeypatch.setenv("SID_JAX_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.setenv("SID_JAX_CACHE", "gs://bucket/a")
    with pytest.raises(UserError, match="SID_JAX_CACHE"):
        cache_folder()
    monkeypatch.delenv("SID_JAX_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "sid_jax"
