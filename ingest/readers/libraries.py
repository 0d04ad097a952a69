"""The libraries that readers of heavy formats need, and the extras of the package that bring them.

The base install reads pictures, DICOM, NIfTI, NRRD, MetaImage and NumPy arrays. Whether a source needs more is looked
at once, before a job begins: a missing library is a property of the machine, and no file is rejected because of it.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from typing import Any, Final

from ingest.settings import IngestSettings
from shards.errors import ConfigError, LibraryError

EXTRAS: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {
    "slide": (("tiffslide", "cv2"), "slides"),
    "video": (("av",), "video"),
    "hdf5": (("h5py",), "hdf5"),
}
"""Reader → its libraries, and the extra that brings them."""


def missing_readers() -> frozenset[str]:
    """The readers of which a library is not installed."""
    return frozenset(reader for reader, (libraries, _) in EXTRAS.items() if any(map(_is_missing, libraries)))


def _is_missing(library: str) -> bool:
    return find_spec(library) is None


def library_for(task: str, name: str, extra: str) -> Any:
    """A library that only some files of a format need, which is known when such a file is met.

    Args:
        task: What it is needed for; the error begins with it.
        name: The module.
        extra: The extra of this package that brings it.

    Raises:
        LibraryError: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        hint = f"pip install 'biovfm[{extra}]'"
        raise LibraryError(f"{task} needs {name}, which is not installed", hint=hint) from error


def check_libraries(readers: Iterable[str]) -> None:
    """Check that the libraries of all these readers are there.

    Raises:
        ConfigError: One is not.
    """
    missing = missing_readers()
    if not missing:
        return
    lacking = next((reader for reader in readers if reader in missing), "")
    if lacking:
        libraries, extra = EXTRAS[lacking]
        library = next(filter(_is_missing, libraries))
        raise ConfigError(
            f"the {lacking} reader needs {library}, which is not installed", hint=f"pip install 'biovfm[{extra}]'"
        )


def check_text_finder(settings: IngestSettings) -> None:
    """Check that text can be looked for, if it is to be.

    Raises:
        ConfigError: The library or its runtime is not installed.
    """
    missing = [name for name in ("rapidocr", "onnxruntime") if settings.find_text and find_spec(name) is None]
    if missing:
        raise ConfigError(f"find_text needs {missing[0]}, which is not installed", hint="pip install 'biovfm[text]'")
