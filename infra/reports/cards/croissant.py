"""A card as Croissant (MLCommons): JSON-LD of format 1.0 with the responsible-AI vocabulary."""

from __future__ import annotations

from typing import Any, Final

from infra.reports.cards.facts import CardFacts
from infra.reports.cards.markdown import deduplication, making, privacy, summary
from shards.files import json_text

_CONTEXT: Final[dict[str, Any]] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataBiases": "cr:dataBiases",
    "dataCollection": "cr:dataCollection",
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "excludes": "cr:excludes",
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "personalSensitiveInformation": "cr:personalSensitiveInformation",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
_NO_CHECKSUM: Final = "https://github.com/mlcommons/croissant/issues/80"
"""What Croissant's own documents put in the place of a folder's checksum."""
_FIELDS: Final = (
    ("key", "sc:Text", "Key of the sample."),
    ("source", "sc:Text", "Source id."),
    ("modality", "sc:Text", "Modality tag."),
    ("anatomy", "sc:Text", "Body part; empty where unknown."),
    ("licence", "sc:Text", "Licence of the image."),
    ("pixel_sha256", "sc:Text", "SHA-256 of the canonical pixels."),
)


def croissant(facts: CardFacts) -> str:
    """The JSON text."""
    document: dict[str, Any] = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": ["http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"],
        "name": facts.title,
        "description": summary(facts) + _others(facts),
        "version": f"1.{facts.version}.0",
        "identifier": facts.dataset_id or facts.title,
        "license": sorted({name for one in facts.sources for name in one.licences}),
        "citeAs": "; ".join(one.citation for one in facts.sources if one.citation) or "not known",
        "url": next((one.url for one in facts.sources if one.url), "https://schema.org/Dataset"),
        "keywords": ["biomedical images", *facts.modalities],
        **_responsible(facts),
        "distribution": _distribution(facts),
        "recordSet": [_pictures(), _facts()],
    }
    return json_text(document, indent=2) + "\n"


def _others(facts: CardFacts) -> str:
    more = f" The shards hold {facts.others:,} further images that are no part of it." if facts.others else ""
    unknown = "".join(f" {line}." for line in facts.unknown_licences)
    return more + unknown


def _responsible(facts: CardFacts) -> dict[str, Any]:
    names = ", ".join(f"{one.name} ({one.samples:,})" for one in facts.sources)
    rejects: dict[str, int] = {}
    for one in facts.sources:
        for reason, num in one.rejects.items():
            rejects[reason] = rejects.get(reason, 0) + num
    left_out = ", ".join(f"{reason} {num:,}" for reason, num in sorted(rejects.items())) or "nothing"
    tags = ", ".join(f"{name} {num / max(facts.samples, 1):.1%}" for name, num in facts.modalities.items())
    return {
        "rai:dataCollection": f"Images of published and own collections: {names}.",
        "rai:dataCollectionType": ["Secondary Data Analysis"],
        "rai:dataCollectionMissingData": f"Raw images that were not taken, by reason: {left_out}.",
        "rai:dataPreprocessingProtocol": [making(facts), deduplication(facts)],
        "rai:dataBiases": [
            f"Modalities are not balanced: {tags}.",
            "Sources differ in devices, countries and patients.",
        ],
        "rai:dataLimitations": [
            "Images are two-dimensional and of 8 bits; they are not for diagnosis.",
            *facts.unknown_licences,
        ],
        "rai:dataUseCases": ["Self-supervised pretraining of vision models, and research on it."],
        "rai:personalSensitiveInformation": [privacy(facts)],
        "rai:dataReleaseMaintenancePlan": "Versions are those of the dataset's index; a lock file pins one.",
    }


def _distribution(facts: CardFacts) -> list[dict[str, Any]]:
    return [
        {
            "@type": "cr:FileObject",
            "@id": "repository",
            "name": "repository",
            "description": "The dataset's folder.",
            "contentUrl": ".",
            "encodingFormat": "git+https",
            "sha256": _NO_CHECKSUM,
        },
        {
            "@type": "cr:FileSet",
            "@id": "shards",
            "name": "shards",
            "description": "WebDataset shards of one source and modality each.",
            "containedIn": {"@id": "repository"},
            "encodingFormat": "application/x-tar",
            "includes": list(facts.shards.paths),
        },
        *(
            {
                "@type": "cr:FileSet",
                "@id": name,
                "name": name,
                "description": words,
                "containedIn": {"@id": "shards"},
                "encodingFormat": kind,
                "includes": includes,
            }
            for name, words, kind, includes in (
                ("images", "The images.", "image/jpeg", ["*.jpg", "*.png"]),
                ("sidecars", "What is known of each image.", "application/json", ["*.json"]),
            )
        ),
    ]


def _pictures() -> dict[str, Any]:
    """The images, each with the name by which its sidecar is found."""
    names = _field("images/name", "File name: the sample's key and the format.", "sc:Text", "images", "filename")
    content = _field("images/content", "The image.", "sc:ImageObject", "images", "content")
    return _record_set("images", "One record per image.", [names, content])


def _facts() -> dict[str, Any]:
    fields = []
    for name, kind, words in _FIELDS:
        field = _field(f"samples/{name}", words, kind, "sidecars", "")
        fields.append({**field, "source": {"fileSet": {"@id": "sidecars"}, "extract": {"jsonPath": f"$.{name}"}}})
    return _record_set("samples", "What is known of each image, one record per sidecar.", fields)


def _record_set(name: str, words: str, fields: list[dict[str, Any]]) -> dict[str, Any]:
    return {"@type": "cr:RecordSet", "@id": f"{name}-records", "name": name, "description": words, "field": fields}


def _field(name: str, words: str, kind: str, files: str, extract: str) -> dict[str, Any]:
    source = {"fileSet": {"@id": files}, "extract": {"fileProperty": extract}}
    named = {"@type": "cr:Field", "@id": name, "name": name, "description": words, "dataType": kind}
    return {**named, "source": source}
