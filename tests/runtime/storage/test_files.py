import importlib.util
import re

import pytest
from etils import epath

from sid_jax.errors import UserError
from sid_jax.runtime.storage.files import absolute, is_remote, on_disk, reaching, refuse_links_out, write_whole
from sid_jax.runtime.storage.json_files import write_json


def test_a_file_is_replaced_as_a_whole(tmp_path, monkeypatch):
    file = tmp_path / "a.txt"
    write_whole(file, "old")
    write_whole(str(file), "new ü".encode())
    assert file.read_text() == "new ü"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]

    def fail(self, data):
        raise OSError("disk full")

    monkeypatch.setattr(type(epath.Path(file)), "write_bytes", fail)
    with pytest.raises(OSError, match="disk full"):
        write_whole(file, "newer")
    assert file.read_text() == "new ü"


def test_a_path_is_absolute_on_a_disk_or_in_a_bucket(tmp_path, monkeypatch, bucket):
    monkeypatch.chdir(tmp_path)
    assert absolute("a/b") == tmp_path / "a" / "b"
    assert str(absolute(f"{bucket}/a")) == f"{bucket}/a"


def test_a_bucket_without_what_reads_it_is_an_error(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^gs://bucket/a is in a bucket, which needs gcsfs: pip install gcsfs$"):
        absolute("gs://bucket/a")


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("s3://bucket/a", "is in a bucket, which needs s3fs: pip install s3fs"),
        ("az://bucket/a", "is in a bucket, which needs adlfs: pip install adlfs"),
        ("https://host/a.txt", "of addresses only buckets can be opened"),
        ("memory://a", "of addresses only buckets can be opened"),
        ("x://", "of addresses only buckets can be opened"),
        ("GS://bucket/a", "of addresses only buckets can be opened"),
    ],
)
def test_what_cannot_be_opened_is_one_line_that_says_what_is_needed(monkeypatch, path, says):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError) as caught:
        absolute(path)
    assert str(caught.value).startswith(path) and says in str(caught.value)
    with pytest.raises(UserError, match=f"^--out {re.escape(path)} is in a bucket and must be on a disk"):
        on_disk(path, "--out")


def test_a_bucket_has_a_name(bucket):
    with pytest.raises(UserError, match=r"^gs://: it names no bucket"):
        absolute("gs://")


def test_home_and_file_addresses_are_paths(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in ("~/a", f"file://{tmp_path}/a", f"{tmp_path}/b/../a"):
        assert absolute(path) == tmp_path / "a" == on_disk(path, "--out")
        assert not is_remote(path)


def test_an_address_within_a_text_is_no_address(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute("as on https://host/a") == tmp_path / "as on https:" / "host" / "a"


def test_what_a_client_of_buckets_raises_is_one_line():
    class NoCredentials(Exception):
        pass

    for error in (NoCredentials("none\nfound"), FileNotFoundError("bucket"), KeyError("project")):
        with pytest.raises(UserError, match=r"^gs://bucket/a: the bucket can't be used \(.+\): check its name"):  # noqa: SIM117
            with reaching("gs://bucket/a"):
                raise error
    with pytest.raises(KeyError), reaching("/a"):  # on a disk it is a defect
        raise KeyError("a")


def test_a_bucket_is_remote():
    assert is_remote("gs://bucket/run")
    assert is_remote(epath.Path("gs://bucket/run") / "a")
    assert not is_remote("runs/a")


def test_links_that_lead_out_of_a_folder_are_refused(tmp_path, bucket):
    folder, outside = tmp_path / "run", tmp_path / "outside"
    (folder / "checkpoints").mkdir(parents=True)
    outside.mkdir()
    (folder / "inner").symlink_to(folder / "checkpoints")
    refuse_links_out(epath.Path(folder))
    refuse_links_out(epath.Path(bucket))
    for link in (folder / "samples", folder / "checkpoints" / "20"):
        link.symlink_to(outside)
        with pytest.raises(UserError, match=f"^{link} is a link out of {folder}"):
            refuse_links_out(epath.Path(folder))
        link.unlink()
    (tmp_path / "link").symlink_to(folder)  # what the user names may be one
    refuse_links_out(epath.Path(tmp_path / "link"))


@pytest.mark.parametrize("write", [write_whole, lambda path, data: write_json(path, {"a": data})])
def test_what_cannot_be_written_is_named(tmp_path, monkeypatch, write):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(epath.Path(tmp_path)), "write_bytes", fail)
    monkeypatch.setattr(type(tmp_path), "write_text", fail)
    with pytest.raises(OSError) as caught:
        write(tmp_path / "a", "text")
    assert caught.value.filename == str(tmp_path / "a")
