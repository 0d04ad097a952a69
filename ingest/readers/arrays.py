"""Which arrays of a file that holds several are images, and what tells their frames apart (HDF5, NPZ)."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from ingest.raw.faults import fault_of
from ingest.raw.items import RejectError
from ingest.readers.base import RawImage, failed_image
from ingest.source.layout import FrameRule

__all__ = ["TAKEN", "Array", "Verdict", "images_of", "is_mask_name", "named_arrays", "verdict_of", "wanted_arrays"]

Verdict = tuple[str, str]
"""Reason and detail for which an array is left out."""

TAKEN: Final[Verdict] = ("", "")

_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_MASK_WORDS: Final = re.compile(
    r"(?<![a-z])(?:(?:mask|label|seg|segmentation|target|gt|ground_?truth)(?:s|maps?)?)+(?![a-z])"
)
_PLAIN_NAMES: Final = frozenset({"images", "train_images", "val_images", "test_images", "data", "x", "arr_0"})
"""Names of arrays that say nothing of anybody, and stand in the names of frames."""


class Array(NamedTuple):
    """An array of a file, and what becomes of it.

    Attributes:
        name: Its name in the file.
        frame: What the names of its frames begin with; empty where the file counts as one array.
        fault: Reason for which it is left out; empty where it is taken.
        detail: More of that reason, in our own words.
    """

    name: str
    frame: str = ""
    fault: str = ""
    detail: str = ""


def wanted_arrays(rule: FrameRule, there: Collection[str]) -> list[str]:
    """The arrays that the rule names and the file has, each once; empty where the rule names none.

    Raises:
        RejectError: It names some, and none is there.
    """
    names = [rule.dataset] if isinstance(rule.dataset, str) else rule.dataset
    names = [name for name in dict.fromkeys(names) if name]
    found = [name for name in names if name in there]
    if names and not found:
        raise RejectError("no_image", "no such array")
    return found


def is_mask_name(name: str) -> bool:
    """Whether a word in the name of an array says that it holds masks or labels, not pictures.

    All but letters separates words, and so does a capital letter: `train_mask`, `gt2`, `imageLabels` and `a/seg/b` do
    say so, `unlabeled_images` does not.
    """
    return _MASK_WORDS.search("_".join(_WORD.findall(name)).lower()) is not None


def verdict_of(name: str, shape: Sequence[int], dtype: Any) -> Verdict | None:
    """What becomes of an array that the source does not name; None where it has not the shape or type of images."""
    if dtype.kind not in "uifbc" or not _has_planes(shape):
        return None
    if is_mask_name(name):
        return "other_object", "masks or labels by the array's name; frames.dataset takes it"
    return ("unsupported", "an array of complex numbers") if dtype.kind == "c" else TAKEN


def _has_planes(shape: Sequence[int]) -> bool:
    """Whether two neighbouring axes of the last three, or of two, are longer than one."""
    if len(shape) == 2:
        return min(shape) > 1
    return len(shape) > 2 and min(shape) > 0 and (min(shape[-3:-1]) > 1 or min(shape[-2:]) > 1)


def named_arrays(there: Sequence[str], verdicts: Mapping[str, Verdict], *, is_one: bool) -> list[Array]:
    """The arrays with the beginnings of their frames' names.

    Names may be free text, which must not leave the file: all but some plain ones give way to the array's place, as
    `array3`. Of several taken arrays a single one without a plain name is `array`.

    Args:
        there: All arrays of the file, sorted.
        verdicts: Those that are taken or rejected, in the order in which they are to be read.
        is_one: Whether the file counts as one array, whose frames need no such beginning.
    """
    places = {name: place for place, name in enumerate(dict.fromkeys([*there, *verdicts]))}
    free = [name for name, verdict in verdicts.items() if verdict == TAKEN and name not in _PLAIN_NAMES]
    found = []
    for name, verdict in verdicts.items():
        frame = name if name in _PLAIN_NAMES else "array" if free == [name] else f"array{places[name]}"
        found.append(Array(name, "" if is_one and verdict == TAKEN else frame, *verdict))
    return found


def images_of(arrays: Sequence[Array], read: Callable[[Array], Iterator[RawImage]]) -> Iterator[RawImage]:
    """The images of one array after the other; of several, one that cannot be read costs itself alone.

    Args:
        arrays: Those that are taken, and those that are rejects.
        read: Gives the images of one that is taken.

    Raises:
        RejectError: There is nothing to read, or the only array cannot be read.
    """
    if not arrays:
        raise RejectError("no_image", "no array of images")
    for array in arrays:
        if array.fault:
            yield failed_image(array.fault, array.detail, frame=array.frame)
            continue
        try:
            yield from read(array)
        except Exception as error:  # libraries raise anything on broken arrays
            if len(arrays) == 1 or fault_of(error) is not None:
                raise
            known = error if isinstance(error, RejectError) else RejectError("undecodable", type(error).__name__)
            yield failed_image(known.reason, known.detail, frame=array.frame)
