"""A card for the Hugging Face Hub: Markdown behind a YAML head by which `datasets` loads the shards.

The head names the shards per configuration (see `shard_files`), and the features, since the reader would infer them
from the first five samples: a field that is empty there, or another picture format later, would break the loading.
"""

from __future__ import annotations

from typing import Any, Final

import yaml

from infra.reports.cards.facts import CardFacts
from infra.reports.cards.licences import UNKNOWN, class_of
from infra.reports.cards.markdown import markdown
from shards.schema import modality_folder

_TEXTS: Final = (
    *("key", "source", "modality", "anatomy", "group_id", "pixel_sha256", "raw_path", "raw_frame", "licence", "phash"),
    *("burned_in", "burned_in_by", "label"),
)
_INTEGERS: Final = ("width", "height", "channels", "bit_depth", "raw_width", "raw_height")
_REALS: Final = ("window_center", "window_width")
_SIZES: Final = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_LARGER: Final = ((10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M"))
_COMMONS: Final = ("BY", "BY-SA", "BY-NC", "BY-ND", "BY-NC-SA", "BY-NC-ND")
_EDITIONS: Final = ("2.0", "2.5", "3.0", "4.0")
_HUB: Final = {
    **{name: name.lower() for kind in _COMMONS for name in (f"CC-{kind}-{number}" for number in _EDITIONS)},
    **{name: name.lower() for name in ("CC0-1.0", "MIT", "APACHE-2.0", "BSD-2-CLAUSE", "BSD-3-CLAUSE")},
    "PDDL-1.0": "pddl",
    "ODC-BY-1.0": "odc-by",
}
"""SPDX identifier → the Hub's."""


def hugging_face(facts: CardFacts) -> str:
    """The text of `README.md` in the dataset's folder."""
    folders = [modality_folder(modality) for modality in facts.modalities]
    names = {"default": list(facts.shards.paths)} | {folder: facts.shards.of(folder) for folder in folders}
    head: dict[str, Any] = {
        "pretty_name": facts.title,
        "license": _licence(facts),
        "task_categories": ["image-feature-extraction"],
        "tags": ["medical", "webdataset", *folders],
        "size_categories": [_size(facts.samples)],
        "configs": [
            {"config_name": name, "data_files": [{"split": "train", "path": files}]} for name, files in names.items()
        ],
        "dataset_info": [{"config_name": name, "features": _features()} for name in names],
    }
    return f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n\n{markdown(facts)}"


def _features() -> list[dict[str, Any]]:
    fields = [
        *({"name": name, "dtype": "string"} for name in _TEXTS),
        *({"name": name, "dtype": "int64"} for name in _INTEGERS),
        *({"name": name, "dtype": "float64"} for name in _REALS),
    ]
    pictures = [{"name": name, "dtype": "image"} for name in ("jpg", "png")]
    places = [{"name": name, "dtype": "string"} for name in ("__key__", "__url__")]
    return [*pictures, {"name": "json", "struct": fields}, *places]


def _licence(facts: CardFacts) -> str:
    """The Hub's word for the licence where all images have the same known one and may be used as it says, else `other`.

    Some of a source's terms may be stricter than the licence that its images have.
    """
    classes = {pair for one in facts.sources for pair in one.licence_classes.items()}
    if len(classes) != 1:
        return "other"
    ((name, found),) = classes
    if name == UNKNOWN:
        return UNKNOWN
    return _HUB.get(name.upper(), "other") if found == class_of(name, {}) else "other"


def _size(num: int) -> str:
    return next((name for limit, name in (*_SIZES, *_LARGER) if num < limit), "100M<n<1B")
