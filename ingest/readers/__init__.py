"""One reader a raw format, found by file name and loaded when first used."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from functools import partial
from typing import cast

from ingest.raw.items import RawFile, RejectError
from ingest.readers.base import RawImage, Reader, ReadOptions
from ingest.readers.content import CONTENT_BYTES, reader_by_content
from ingest.readers.libraries import load_libraries

__all__ = ["EXTENSIONS", "RawImage", "ReadOptions", "Reader", "handles", "reader_for", "reader_name"]

EXTENSIONS: dict[str, tuple[str, ...]] = {
    "images": (
        *("jpg", "jpeg", "jpe", "jfif", "mpo", "png", "tif", "tiff", "bmp", "gif", "webp"),
        *("pgm", "ppm", "pnm", "pbm", "jp2", "j2k", "j2c", "jpx"),
    ),
    "dicom": ("dcm", "dicom", "ima", "dc3"),
    "nifti": ("nii", "nii.gz"),
    "nrrd": ("nrrd", "nhdr"),
    "metaimage": ("mha", "mhd"),
    "hdf5": ("h5", "hdf5", "hdf"),
    "numpy": ("npy", "npz"),
    "video": ("mp4", "avi", "mov", "mkv", "m4v", "mpg", "mpeg", "wmv", "webm"),
    "slide": ("svs", "ndpi", "scn", "bif", "svslide"),
}
"""Reader → the extensions it takes when the spec says `auto`."""

_BY_EXTENSION = {extension: reader for reader, extensions in EXTENSIONS.items() for extension in extensions}
_NOT_MINE = ("unreadable", "undecodable", "unsupported", "no_image")
_MODULES = {reader: f"ingest.readers.{reader}" for reader in EXTENSIONS}


def handles(reader: str, name: str) -> bool:
    """Whether `reader` takes a file of this name when no glob says which.

    `dicom` and `auto` also take names without a letter in their extension (`IM0001`, `1.2.840.113.5`).
    """
    found = _by_name(name)
    return bool(found) if reader in ("auto", "list") else found == reader


def reader_for(reader: str, name: str) -> Reader:
    """The reader for a file; under `auto` it follows the content where the name promises another format.

    Args:
        reader: Name of a reader, `auto`, or `list`: what a list names is told by its content where its name says
            nothing, as that of a URL often does.
        name: File name.

    Raises:
        LibraryError: A library of the reader is not installed, or cannot be loaded on this machine.
        RejectError: `auto`, and no reader takes such a name.
    """
    chosen = reader_name(reader, name)
    if not chosen and reader == "list":
        return _by_content
    if not chosen:
        raise RejectError("unsupported", "no reader for this extension")
    return _loaded(chosen) if chosen == reader else partial(_by_name_else_content, chosen)


def _loaded(reader: str) -> Reader:
    load_libraries(reader)
    return cast("Reader", importlib.import_module(_MODULES[reader]).read)


def _by_name_else_content(chosen: str, raw: RawFile, options: ReadOptions) -> Iterator[RawImage]:
    """What the reader for the name gives; where it cannot make anything of the file, what its content asks for."""
    images = _loaded(chosen)(raw, options)
    try:
        first = next(images, None)
    except RejectError as error:
        other = reader_by_content(raw.head(CONTENT_BYTES)) if error.reason in _NOT_MINE else ""
        if other in ("", chosen):
            raise
        yield from _loaded(other)(raw, options)
        return
    if first is not None:
        yield first
        yield from images


def _by_content(raw: RawFile, options: ReadOptions) -> Iterator[RawImage]:
    reader = reader_by_content(raw.head(CONTENT_BYTES))
    if not reader:
        raise RejectError("unsupported", "no reader for this extension, nor for its first bytes")
    yield from _loaded(reader)(raw, options)


def reader_name(reader: str, name: str) -> str:
    """The reader that `auto` stands for; empty where none takes such a name."""
    return _by_name(name) if reader in ("auto", "list") else reader


def _by_name(name: str) -> str:
    lower = name.lower()
    if lower.endswith(".nii.gz"):
        return "nifti"
    stem, dot, extension = lower.rpartition(".")
    if not dot or not stem or re.fullmatch(r"\d+", extension):
        return "" if lower.startswith(".") or lower in _NO_IMAGE else "dicom"
    return _BY_EXTENSION.get(extension, "")


_NO_IMAGE = frozenset({"readme", "license", "licence", "dicomdir", "makefile", "changelog", "authors", "notice"})
