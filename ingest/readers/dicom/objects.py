"""Which DICOM objects are images of a modality, and what says whether text is burned into their pixels.

An archive of a hospital or a public download holds more than images: segmentations, dose maps, presentation states,
reports, waveforms. They are told by their SOP class (PS3.4 B.5), or by their modality where the class is missing or
private, whatever a source says of its files. Labels, overviews and thumbnails of slides are told by `ImageType`
(PS3.3 C.8.12.4.1.1) and `SpecimenLabelInImage`; screens saved by the console of a scanner, dose reports among them, by
`ImageType` and by the class of secondary captures.

Burned-in text follows the public rule sets: the filter for burned-in pixels of RSNA's CTP (`ImageType` with SAVE,
`BurnedInAnnotation`, the attributes of secondary capture equipment) and karnak's list of classes whose pixels have to
be cleaned whatever `BurnedInAnnotation` says (ultrasound, secondary capture, endoscopy).
"""

from __future__ import annotations

import re
from typing import Any, Final

from ingest.readers.base import BurnedIn
from ingest.readers.dicom.attributes import code_of, codes_of, number_of, value_of

MODALITY_TAGS: Final = {
    **dict.fromkeys(("CR", "DX", "XA", "RF", "MG", "RTIMAGE", "IO", "PX", "RG"), "X-Ray"),
    **dict.fromkeys(("NM", "PT"), "NM"),
    **dict.fromkeys(("US", "IVUS", "BDUS"), "US"),
    **dict.fromkeys(("SM", "GM"), "Microscopy"),
    **dict.fromkeys(("OPT", "OCT", "IVOCT"), "OCT"),
    "OPTBSV": "OCTA",
    "CT": "CT",
    "MR": "MR",
    "OP": "Fundus",
    "DMS": "Dermoscopy",
    "ES": "Endoscopy",
}
"""DICOM Modality (0008,0060) → tag. Others (SC, OT …) say nothing about how the picture was made."""

_STORAGE: Final = "1.2.840.10008.5.1.4.1.1."
_OTHER_CLASSES: Final = {
    "66": "raw data",
    "66.1": "registration",
    "66.2": "fiducials",
    "66.3": "registration",
    "66.4": "segmentation",
    "66.5": "segmentation",
    "66.6": "tractography",
    "66.7": "segmentation",
    "66.8": "segmentation",
    "30": "parametric map",
    "67": "real world value mapping",
    "4.2": "spectroscopy",
    "81.1": "thickness map",
    "82.1": "topography map",
    "90.1": "content assessment",
    "131": "structured display",
}
_OTHER_FAMILIES: Final = {
    "9": "waveform",
    "11": "presentation state",
    "34": "radiotherapy",
    "68": "surface scan",
    "77.1.5.3": "stereometric relationship",
    "78": "ophthalmic measurement",
    "79": "ophthalmic measurement",
    "80": "ophthalmic measurement",
    "88": "report",
    "104": "encapsulated document",
    "200": "protocol",
    "201": "inventory",
    "481": "radiotherapy",
}
_RT_IMAGE: Final = "481.1"
_DIRECTORY: Final = "1.2.840.10008.1.3.10"
_OTHER_MODALITIES: Final = {
    **dict.fromkeys(("SEG", "M3D"), "segmentation"),
    **dict.fromkeys(
        ("RTDOSE", "RTSTRUCT", "RTPLAN", "RTRECORD", "RTINTENT", "RTRAD", "RTSEGANN", "PLAN"), "radiotherapy"
    ),
    **dict.fromkeys(("PR", "HC"), "presentation state"),
    **dict.fromkeys(("SR", "DOC", "KO", "SMR", "CTPROTOCOL", "ASMT", "ANN"), "report"),
    **dict.fromkeys(("ECG", "EPS", "HD", "AU", "RESP", "EEG", "EMG", "EOG", "POS"), "waveform"),
    **dict.fromkeys(("REG", "FID"), "registration"),
    "RWV": "real world value mapping",
    **dict.fromkeys(("LEN", "AR", "KER", "VA", "SRF", "OPM", "OPV", "IOL", "BMD"), "measurement"),
    **dict.fromkeys(("TEXTUREMAP", "STAIN", "FSTATE"), "no image"),
}
_SLIDE: Final = ("1.2.840.10008.5.1.4.1.1.77.1.6", "1.2.840.10008.5.1.4.1.1.77.1.2", "1.2.840.10008.5.1.4.1.1.77.1.3")
_LABEL_TYPES: Final = frozenset({"LABEL", "OVERVIEW", "MACRO", "THUMBNAIL"})
_SCREEN_WORDS: Final = re.compile(r"SCREEN(?!ING)|SAVE|\bDOSE|REPORT|PROTOCOL|[ _]PROT$")
_SECONDARY_CAPTURE: Final = "7"
_CLEANED_CLASSES: Final = ("3", "6", "7", "77.1.1")
_RECONSTRUCTED: Final = ("2", "4", "20", "128", "130")
"""CT, MR, NM and PET: computed from measurements, with no step at which a name is drawn."""


def object_fault(dataset: Any) -> tuple[str, str] | None:
    """Reason and detail where a file is no image of a modality, else None."""
    known = _storage_class(dataset)
    other = _other_object(known) or _OTHER_MODALITIES.get(code_of(dataset, "Modality"), "")
    if str(value_of(dataset, "SOPClassUID", "")).strip() == _DIRECTORY:
        other = "directory"
    if other:
        return "other_object", other
    types = codes_of(dataset, "ImageType")
    is_slide = code_of(dataset, "Modality") == "SM" or str(value_of(dataset, "SOPClassUID", "")).strip() in _SLIDE
    if is_slide:
        found = next((word for word in types if word in _LABEL_TYPES), "")
        if found or code_of(dataset, "SpecimenLabelInImage") == "YES":
            return "slide_label", found.lower() or "label in the image"
    return ("screen_capture", "ImageType") if any(map(_SCREEN_WORDS.search, types)) else None


def _storage_class(dataset: Any) -> str:
    """The part of the SOP class behind the root of the storage classes; empty for all others."""
    uid = str(value_of(dataset, "SOPClassUID", "") or "").strip()
    return uid.removeprefix(_STORAGE) if uid.startswith(_STORAGE) else ""


def _other_object(known: str) -> str:
    if known == _RT_IMAGE:
        return ""
    family = next((what for root, what in _OTHER_FAMILIES.items() if _is_in(known, root)), "")
    return _OTHER_CLASSES.get(known, family)


def _is_in(known: str, root: str) -> bool:
    return known == root or known.startswith(f"{root}.")


def is_capture(dataset: Any) -> bool:
    """Whether the picture is a secondary capture: of a screen, a film, or converted from another format."""
    return _is_in(_storage_class(dataset), _SECONDARY_CAPTURE)


def burned_in(dataset: Any) -> BurnedIn:
    """What the header says of text in the pixels, and which attribute says it."""
    known = _storage_class(dataset)
    said = code_of(dataset, "BurnedInAnnotation")
    rules: tuple[tuple[bool, BurnedIn], ...] = (
        (said == "YES", BurnedIn("yes", "BurnedInAnnotation")),
        (any("SAVE" in word for word in codes_of(dataset, "ImageType")), BurnedIn("yes", "ImageType")),
        (any(_is_in(known, root) for root in _CLEANED_CLASSES), BurnedIn("unknown", "SOPClassUID")),
        (bool(code_of(dataset, "ConversionType")), BurnedIn("unknown", "ConversionType")),
        (said == "NO", BurnedIn("no", "BurnedInAnnotation")),
        (any(_is_in(known, root) for root in _RECONSTRUCTED), BurnedIn("no", "SOPClassUID")),
    )
    return next((answer for holds, answer in rules if holds), BurnedIn())


def ultrasound_region(dataset: Any) -> tuple[int, int, int, int] | None:
    """The box around all ultrasound regions, where it leaves out more than a tenth of the picture.

    Regions include their last row and column (PS3.3 C.8.5.5.1.3).
    """
    rows, columns = number_of(dataset, "Rows", 0), number_of(dataset, "Columns", 0)
    boxes = []
    for item in value_of(dataset, "SequenceOfUltrasoundRegions") or ():
        edges = [number_of(item, f"RegionLocation{name}", -1) for name in ("MinY0", "MinX0", "MaxY1", "MaxX1")]
        if 0 <= edges[0] < edges[2] <= rows and 0 <= edges[1] < edges[3] <= columns:
            boxes.append(edges)
    if not boxes:
        return None
    top, left = min(box[0] for box in boxes), min(box[1] for box in boxes)
    bottom, right = max(box[2] for box in boxes), max(box[3] for box in boxes)
    covers = (bottom - top) * (right - left) > 0.9 * rows * columns
    return None if covers else (top, left, bottom, right)
