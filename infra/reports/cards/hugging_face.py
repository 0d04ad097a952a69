"""A card for the Hugging Face Hub: Markdown behind a YAML head by which `datasets` loads the shards.

The head names the shards per configuration (see `shard_files`), and the features, since the reader would infer them
from the first five samples: a field that is empty there, or another picture format later, would break the loading.
"""

from __future__ import annotations

from typing import Any, Final

import yaml

from infra.reports.cards.facts import UNKNOWN, CardFacts
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
    """The Hub's word for the licence where all images have the same known one, else `other`."""
    names = {name for one in facts.sources for name in one.licences}
    only = next(iter(names)).lower() if len(names) == 1 else "other"
    return UNKNOWN if only == UNKNOWN else only if only.startswith(("cc", "mit", "apache", "pddl", "odc")) else "other"


def _size(num: int) -> str:
    return next((name for limit, name in (*_SIZES, *_LARGER) if num < limit), "100M<n<1B")
