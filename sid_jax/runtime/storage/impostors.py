"""What stands in the place of a file that a download should have brought, by its first bytes."""

FIRST_BYTES = 512


def what_it_is(start: bytes) -> str | None:
    """What a file is and what to do, where that is a well-known mistake; None: nothing is known of it.

    A clone without Git LFS has texts of three lines instead of large files, a download may have saved a page of the
    website, and one that was stopped leaves an empty file.

    Args:
      start: the file's first `FIRST_BYTES`, or all of it.
    """
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not start:
        return "an empty file, as a download that was stopped leaves it: fetch it again"
    if text.startswith(b"version https://git-lfs.github.com/"):
        return "a pointer of Git LFS, of a clone without the file itself: run `git lfs pull` there"
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
        return "a page of a website, not the file: download the file itself"
    return None
