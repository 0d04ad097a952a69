"""What a file really is whose content does not fit its name, told from its first bytes."""

from __future__ import annotations

from typing import Final

__all__ = ["HEAD_BYTES", "answer_instead", "disguise"]

HEAD_BYTES: Final = 512

_ANSWERS: Final = (
    (b"<!doctype html", "a web page, not the file: download it again"),
    (b"<html", "a web page, not the file: download it again"),
    (b"<?xml", "an XML message, not the file: download it again"),
    (b"<error", "an XML message, not the file: download it again"),
    (b'{"error', "an error message of a server, not the file: download it again"),
    (b'{"message', "an error message of a server, not the file: download it again"),
)
"""What servers say instead of giving the file: a login, a quota, an expired link."""

_POINTERS: Final = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file: fetch it with `git lfs pull`"),
    (b"/annex/objects/", "a git-annex pointer, not the file: fetch it with `git annex get`"),
)
_MAGICS: Final = (
    (b"Rar!\x1a\x07", "a RAR archive under another name", ("rar",)),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive under another name", ("7z",)),
    (b"PK\x03\x04", "a zip archive, or the first part of one", ("zip", "npz")),
    (b"\x1f\x8b", "gzip data under another name", ("gz", "tgz")),
    (b"BZh", "bzip2 data under another name", ("bz2", "tbz2")),
    (b"\xfd7zXZ\0", "xz data under another name", ("xz", "txz")),
    (b"\x28\xb5\x2f\xfd", "zstd data under another name", ("zst", "tzst")),
    (b"%PDF-", "a PDF document", ("pdf",)),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document", ("doc", "xls")),
)


def disguise(head: bytes, name: str = "") -> str:
    """What a file of these first bytes is, in our own words; empty where they say nothing new.

    Args:
        head: The first `HEAD_BYTES` of the file, or all of it.
        name: Its name: what a name promises is no disguise.
    """
    if head and not head.strip(b"\0"):
        return "nothing but zeros: an unfinished download" if len(head) >= HEAD_BYTES else ""
    text = _text(head)
    found = answer_instead(head) or next((words for start, words in _POINTERS if text.startswith(start)), "")
    extension = name.lower().rpartition(".")[2]
    return found or next((w for magic, w, own in _MAGICS if head.startswith(magic) and extension not in own), "")


def answer_instead(head: bytes) -> str:
    """What a server said instead of giving the file, in our own words; empty where it gave something else.

    Args:
        head: The first `HEAD_BYTES` of what it gave, or all of it.
    """
    text = _text(head)
    return next((words for start, words in _ANSWERS if text.startswith(start)), "")


def _text(head: bytes) -> bytes:
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
