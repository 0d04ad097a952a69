"""Classes of licences: what one may do with images under a licence, by its name and what its source says of its terms.

A name counts as free only where all of it is understood: `CC-BY (research only)` begins like a free licence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

UNKNOWN: Final = "unknown"
NON_COMMERCIAL: Final = "non-commercial"
NO_DERIVATIVES: Final = "no derivatives"
CLASSES: Final[Mapping[str, str]] = {
    "any use": "commercial use, changes and redistribution are allowed",
    NON_COMMERCIAL: "redistribution is allowed, commercial use is not",
    NO_DERIVATIVES: "redistribution is allowed, changed copies are not; stored images are changed copies",
    f"{NON_COMMERCIAL}, {NO_DERIVATIVES}": "redistribution is allowed, commercial use and changed copies are not; "
    "stored images are changed copies",
    "not to be redistributed": "the source alone may hand out the images, or on request",
    UNKNOWN: "nothing is known; ask before use",
}
"""Class of licences → what it allows, in few words."""

_COMMONS: Final = (
    r"(?:CC|CREATIVE-COMMONS)-?(?:0|ZERO)|"
    r"(?:CC-?BY|(?:CC|CREATIVE-COMMONS)(?:-BY|-ATTRIBUTION))(?:-SA|-SHARE-?ALIKE)?"
)
_OTHERS: Final = r"PDDL|ODC-BY|MIT|APACHE|BSD(?:-[0-4]-CLAUSE)?|PUBLIC-DOMAIN(?:-MARK)?"
_EDITION: Final = (
    r"(?:-LICEN[CS]E)?(?:-(?:V|VERSION-)?\d(?:\.\d)?)?(?:-(?:US|UK|DE|FR|NL|IT|ES|AU|JP|IGO))?"
    r"(?:-(?:INTERNATIONAL|UNPORTED|GENERIC|UNIVERSAL))?(?:-LICEN[CS]E|-DEED|-DEDICATION)?"
)
_FREE: Final = re.compile(f"(?:{_COMMONS}|{_OTHERS}){_EDITION}")
_NOT_SOLD: Final = re.compile(r"(?:^|-)(?:NC|NON-?COMMERCIAL(?:LY)?)(?:-|$)")
_NOT_CHANGED: Final = re.compile(r"(?:^|-)(?:ND|NO-?DERIV\w*)(?:-|$)")
_REFUSED: Final = ("forbidden", "on-request")


def class_of(licence: str, terms: Mapping[str, str]) -> str:
    """The class of a licence: the strictest that its name or its terms ask for.

    Args:
        licence: SPDX identifier or name.
        terms: `commercial`, `derivatives` and `redistribution` as `ingest.source.spec.Terms` has them.
    """
    name = re.sub(r"[^0-9A-Z.]+", "-", licence.upper()).strip("-")
    said = {word: terms.get(word, UNKNOWN) for word in ("commercial", "derivatives", "redistribution")}
    if said["redistribution"] in _REFUSED:
        return "not to be redistributed"
    not_sold = said["commercial"] in _REFUSED or _NOT_SOLD.search(name)
    not_changed = said["derivatives"] in _REFUSED or _NOT_CHANGED.search(name)
    if not_sold or not_changed:
        return ", ".join(word for word, is_so in ((NON_COMMERCIAL, not_sold), (NO_DERIVATIVES, not_changed)) if is_so)
    return "any use" if _FREE.fullmatch(name) or set(said.values()) == {"allowed"} else UNKNOWN


def classes_of(licences: Mapping[str, int], spec: Mapping[str, object]) -> dict[str, str]:
    """Licence → class, for the licences of one source's images.

    Args:
        licences: Licence → images.
        spec: The source's entry. What its terms allow holds for its own licence alone, and not for others that single
            images have; what they forbid holds for all.
    """
    said = spec.get("terms")
    terms = {str(name): str(word) for name, word in said.items()} if isinstance(said, Mapping) else {}
    limits = {name: word for name, word in terms.items() if word in _REFUSED}
    return {name: class_of(name, terms if name == spec.get("licence") else limits) for name in licences}
