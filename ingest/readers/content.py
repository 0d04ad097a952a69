"""Which reader a file's first bytes ask for: files without an extension, or with that of another format, are common."""

from __future__ import annotations

from typing import Final

__all__ = ["CONTENT_BYTES", "reader_by_content"]

CONTENT_BYTES: Final = 352

_STARTS: Final = (
    (0, b"\xff\xd8\xff", "images"),
    (0, b"\x89PNG\r\n\x1a\n", "images"),
    (0, b"GIF8", "images"),
    (0, b"II*\0", "images"),
    (0, b"MM\0*", "images"),
    (0, b"II+\0", "images"),
    (0, b"MM\0+", "images"),
    (4, b"jP  \r\n\x87\n", "images"),
    (8, b"WEBP", "images"),
    (0, b"NRRD000", "nrrd"),
    (0, b"\x89HDF\r\n\x1a\n", "hdf5"),
    (0, b"\x93NUMPY", "numpy"),
    (0, b"ObjectType", "metaimage"),
    (0, b"NDims", "metaimage"),
    (344, b"n+1\0", "nifti"),
    (344, b"n+2\0", "nifti"),
    (4, b"ftyp", "video"),
    (8, b"AVI ", "video"),
    (0, b"\x1aE\xdf\xa3", "video"),
)
_DICOM_AT: Final = 128


def reader_by_content(head: bytes) -> str:
    """The reader for a file that begins so; empty where the bytes say nothing.

    Args:
        head: The first `CONTENT_BYTES` of the file, or all of it.
    """
    if head[_DICOM_AT : _DICOM_AT + 4] == b"DICM":
        return "dicom"
    return next((reader for at, start, reader in _STARTS if head.startswith(start, at)), "")
