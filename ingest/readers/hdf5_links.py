"""Finding an array of an HDF5 file without leaving the file.

External links, external storage and virtual datasets let a file name any other file of the machine, whose bytes would
become pixels: whoever wrote the file would choose what is read. They are refused.
"""

from __future__ import annotations

from typing import Any, Final

from ingest.raw.items import RejectError

__all__ = ["own_array"]

_MOST_STEPS: Final = 64
"""Soft links and virtual datasets that are followed, one after the other, before they count as a circle."""


def own_array(file: Any, name: str, *, steps: int = _MOST_STEPS) -> Any:
    """The dataset of this name, all of whose values lie in the file itself; None where there is none.

    Args:
        file: An open `h5py.File`.
        name: Path of the dataset.
        steps: Links and virtual datasets that may still be followed.

    Raises:
        RejectError: Its values lie in another file, or in chunks of another number of axes, on which libhdf5 hangs.
    """
    import h5py

    place: Any = file
    parts = [part for part in name.split("/") if part]
    for number, part in enumerate(parts):
        link = place.get(part, getlink=True) if isinstance(place, h5py.Group) else None
        if link is None or steps <= 0:
            return None
        if isinstance(link, h5py.ExternalLink):
            raise RejectError("unsupported", "values in another file (external link)")
        if isinstance(link, h5py.SoftLink):
            before = [] if link.path.startswith("/") else parts[:number]
            return own_array(file, "/".join([*before, link.path, *parts[number + 1 :]]), steps=steps - 1)
        place = place[part]
    if not isinstance(place, h5py.Dataset):
        return None
    if place.external:
        raise RejectError("unsupported", "values in another file (external storage)")
    if place.chunks is not None and len(place.chunks) != len(place.shape):
        raise RejectError("unreadable", f"chunks of {len(place.chunks)} axes in an array of {len(place.shape)}")
    for source in place.virtual_sources() if place.is_virtual else ():
        if source.file_name != "." or own_array(file, source.dset_name, steps=steps // 2) is None:
            raise RejectError("unsupported", "values in another file (virtual dataset)")
    return place
