"""Which versions of a dataset somebody relies on: small objects `pins/<version>-<name>.json`, one per lock.

Making a lock records a pin, so that a vacuum keeps the version without knowing where the lock file lies. A dataset that
may not be written to is pinned nowhere: whoever vacuums it names the lock files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from shards.errors import AlreadyExistsError, StoreError

if TYPE_CHECKING:
    from shards.dataset.dataset import Dataset

_FOLDER: Final = "pins"
_NAME: Final = re.compile(rf"{_FOLDER}/(\d+)-([0-9a-f]+)\.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """A version that a lock pins.

    Attributes:
        path: The object that says so.
        version: Of the index.
    """

    path: str
    version: int


def record_pin(dataset: Dataset, version: int, *, digest: str) -> bool:
    """Note that a lock pins a version; harmless when repeated.

    Args:
        dataset: The dataset.
        version: Of the index.
        digest: Of the lock's samples; tells the pins of a version apart.

    Returns:
        Whether it is noted; not where the dataset may not be written to.
    """
    name = digest.rpartition(":")[2][:16]
    content = json.dumps({"index_version": version, "digest": digest}).encode()
    try:
        with suppress(AlreadyExistsError):
            dataset.store.put_if_absent(f"{_FOLDER}/{version}-{name}.json", content)
    except StoreError:
        return False
    return True


def pins_of(dataset: Dataset) -> list[Pin]:
    """The recorded pins, by version."""
    found = ((info.path, _NAME.fullmatch(info.path)) for info in dataset.store.list(f"{_FOLDER}/"))
    return sorted(
        (Pin(path=path, version=int(named[1])) for path, named in found if named),
        key=lambda pin: (pin.version, pin.path),
    )


def drop_pins(dataset: Dataset, versions: Iterable[int]) -> list[Pin]:
    """Remove the pins of some versions.

    Returns:
        Those that were removed.
    """
    wanted = set(versions)
    gone = [pin for pin in pins_of(dataset) if pin.version in wanted]
    dataset.store.delete([pin.path for pin in gone])
    return gone
