"""The libraries that readers of heavy formats need, and the extras of the package that bring them.

The base install reads pictures, DICOM, NIfTI, NRRD, MetaImage and NumPy arrays. Whether a source needs more is looked
at once, before a job begins, and libraries are loaded before the first file that needs them: one that is missing or
broken is a property of the machine, and no file is rejected because of it.
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

_MOST_SAID: Final = 200
"""Characters of a library's own words in an error."""


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
        LibraryError: It is not installed, or cannot be loaded on this machine.
    """
    try:
        return importlib.import_module(name)
    except MemoryError:
        raise
    except Exception as error:  # a library that does not fit this machine raises anything while it is loaded
        if isinstance(error, ImportError) and _is_missing(name):
            hint = f"pip install 'biovfm[{extra}]'"
            raise LibraryError(f"{task} needs {name}, which is not installed", hint=hint) from error
        said = " ".join(str(error).split())[:_MOST_SAID]
        raise LibraryError(
            f"{task} needs {name}, which is installed and cannot be loaded here ({type(error).__name__}: {said})",
            hint=f"pip install --force-reinstall 'biovfm[{extra}]'",
        ) from error


def load_libraries(reader: str) -> None:
    """Load the libraries of a reader, before its first file: what is installed may still fail on this machine.

    Raises:
        LibraryError: One is not installed, or cannot be loaded.
    """
    libraries, extra = EXTRAS.get(reader, ((), ""))
    for library in libraries:
        library_for(f"the {reader} reader", library, extra)


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
