"""What ingest makes of every DICOM file below some folders, against pydicom's own pixel pipeline.

    python -m infra.bench.dicom_table FOLDER [FOLDER …] [--json]

One line a file: `equal` (every value before the 8-bit step is pydicom's), the greatest difference where it is not, or
the reason of the reject and what pydicom itself says.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ingest.privacy.silence import silence
from ingest.raw.items import RawFile, RejectError
from ingest.readers import ReadOptions
from ingest.readers.base import RawImage
from ingest.readers.dicom import read


def outcome(path: Path) -> dict[str, Any]:
    """What became of one file."""
    raw = RawFile.of_bytes(path.read_bytes(), path.name)
    row: dict[str, Any] = {"file": path.name, "images": 0, "modality": "", "reason": "", "against_pydicom": ""}
    images: list[RawImage] = []
    try:
        with silence():
            images.extend(read(raw, ReadOptions()))
    except RejectError as error:
        row["reason"] = f"{error.reason} ({error.detail})"
    except Exception as error:  # noqa: BLE001  # the table must show what a job would turn into a reject
        row["reason"] = f"unreadable ({type(error).__name__})"
    row["images"] = len(images)
    row["modality"] = images[0].modality if images else ""
    reference = list(pydicom_frames(path))
    row["against_pydicom"] = compare(images, reference)
    return row


def compare(images: list[RawImage], reference: list[Any]) -> str:
    """`equal`, or how they differ."""
    if reference and isinstance(reference[-1], str):
        return f"pydicom too: {reference[-1]}" if len(reference) - 1 == len(images) else f"pydicom: {reference[-1]}"
    if len(images) != len(reference):
        return f"{len(images)} images, pydicom {len(reference)}"
    worst = 0.0
    for image, frame in zip(images, reference, strict=True):
        if image.pixels.shape != frame.shape:
            return f"shape {image.pixels.shape}, pydicom {frame.shape}"
        worst = max(worst, float(np.abs(image.pixels.astype(np.float64) - frame).max(initial=0)))
    return "equal" if worst == 0 else f"differs by at most {worst:g}"


def pydicom_frames(path: Path) -> Iterator[Any]:
    """Pydicom's `pixel_array` through its own modality LUT, VOI LUT or palette; an error's name at the end."""
    import pydicom
    from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = pydicom.dcmread(path, force=True)
            if "TransferSyntaxUID" not in dataset.file_meta:
                implicit, little = dataset.original_encoding
                uid = pydicom.uid
                syntax = uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian
                dataset.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian if implicit else syntax
            pixels = dataset.pixel_array
        except Exception as error:  # noqa: BLE001  # broken on purpose
            yield type(error).__name__
            return
        count = int(dataset.get("NumberOfFrames", 1) or 1)
        for number, frame in enumerate(pixels if count > 1 else [pixels]):
            if dataset.PhotometricInterpretation == "PALETTE COLOR":
                rgb = apply_color_lut(frame, dataset)[..., :3]
                yield (rgb >> 8) if rgb.dtype.itemsize > 1 and rgb.max() > 255 else rgb
            elif frame.ndim == 3:
                yield frame
            else:
                values = apply_modality_lut(frame, _scale(dataset, number))
                yield apply_voi(values, dataset) if "VOILUTSequence" in dataset else values


def _scale(dataset: Any, number: int) -> Any:
    """The data set that holds a frame's rescale: pydicom leaves functional groups to its callers."""
    for groups in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        items = dataset.get(groups) or []
        item: Any = items[number] if groups.startswith("Per") and number < len(items) else items[0] if items else {}
        if item and item.get("PixelValueTransformationSequence"):
            return item.PixelValueTransformationSequence[0]
    return dataset


def dicom_files(folders: list[str]) -> Iterator[Path]:
    """Files that are DICOM by name or by their magic."""
    for folder in folders:
        for path in sorted(Path(folder).rglob("*")):
            if not path.is_file() or path.suffix in (".py", ".pyc", ".txt", ".md", ".json"):
                continue
            with path.open("rb") as stream:
                magic = stream.read(132)[128:] == b"DICM"
            if magic or path.suffix.lower() in (".dcm", ".ima", ".dc3"):
                yield path


def main(arguments: list[str]) -> None:
    """Print the table."""
    rows = [outcome(path) for path in dicom_files([a for a in arguments if not a.startswith("--")])]
    if "--json" in arguments:
        print(json.dumps(rows, indent=1))
        return
    print(f"{'file':<58}{'images':>7}  {'modality':<9}outcome")
    for row in rows:
        said = "; ".join(part for part in (row["reason"], row["against_pydicom"]) if part)
        print(f"{row['file'][:56]:<58}{row['images']:>7}  {row['modality']:<9}{said}")
    kinds = Counter(row["against_pydicom"] if row["images"] else row["reason"].split(" ")[0] for row in rows)
    print(f"{len(rows)} files: " + ", ".join(f"{count} {kind}" for kind, count in kinds.most_common()))


if __name__ == "__main__":
    main(sys.argv[1:])
