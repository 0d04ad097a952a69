"""The libraries that readers of heavy formats need, and the extras of the package that bring them.

The base install reads pictures, DICOM, NIfTI, NRRD, MetaImage and NumPy arrays. Whether a source needs more is looked
at once, before a job begins: a missing library is a property of the machine, and no file is rejected because of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from typing import Final

from ingest.settings import IngestSettings
from shards.errors import ConfigError

EXTRAS: Final[Mapping[str, tuple[str, str]]] = {
    "slide": ("tiffslide", "slides"),
    "video": ("av", "video"),
    "hdf5": ("h5py", "hdf5"),
}
"""Reader → its library, and the extra that brings it."""


def missing_readers() -> frozenset[str]:
    """The readers whose library is not installed."""
    return frozenset(reader for reader, (library, _) in EXTRAS.items() if find_spec(library) is None)


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
        library, extra = EXTRAS[lacking]
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
