"""Classes of licences: the strictest that is said, and never a free one of what is not understood."""

from __future__ import annotations

import pytest

from infra.reports.cards.licences import CLASSES, class_of, classes_of


@pytest.mark.parametrize(
    ("licence", "terms", "found"),
    [
        ("CC0-1.0", {}, "any use"),
        ("CC-BY-NC-4.0", {}, "non-commercial"),
        ("CC BY-ND 4.0", {}, "no derivatives"),
        ("CC-BY-4.0", {"redistribution": "on-request"}, "not to be redistributed"),
        ("own terms", {"commercial": "forbidden", "redistribution": "allowed"}, "non-commercial"),
        ("own terms", dict.fromkeys(("commercial", "derivatives", "redistribution"), "allowed"), "any use"),
        ("own terms", {}, "unknown"),
        ("unknown", {}, "unknown"),
        ("CC-0", {}, "any use"),
        ("CC BY-SA 3.0 IGO", {}, "any use"),
        ("Creative Commons Attribution 4.0 International", {}, "any use"),
        ("Apache License 2.0", {}, "any use"),
        ("BSD-3-Clause", {}, "any use"),
        ("MIT License", {}, "any use"),
        ("CC BY Non-Commercial", {}, "non-commercial"),
        ("Creative Commons Attribution-NonCommercial 4.0", {}, "non-commercial"),
        ("CC-BY-NC-ND-4.0", {}, "non-commercial, no derivatives"),
        ("CC BY-NoDerivatives 4.0", {}, "no derivatives"),
        ("CC-BY (research only)", {}, "unknown"),
        ("CC-BY, on request", {}, "unknown"),
        ("MIT-IBM terms", {}, "unknown"),
        ("CC", {}, "unknown"),
        ("CC-BY-4.0", {"commercial": "on-request"}, "non-commercial"),
        ("CC-BY-NC-4.0", {"derivatives": "forbidden"}, "non-commercial, no derivatives"),
    ],
)
def test_classes_of_licences(licence: str, terms: dict[str, str], found: str) -> None:
    assert class_of(licence, terms) == found
    assert found in CLASSES


def test_what_a_source_allows_holds_for_its_own_licence_and_what_it_forbids_for_all() -> None:
    licences = {"own terms": 2, "other terms": 1, "CC0-1.0": 1}
    allowed = dict.fromkeys(("commercial", "derivatives", "redistribution"), "allowed")
    found = classes_of(licences, {"licence": "own terms", "terms": allowed})
    assert found == {"own terms": "any use", "other terms": "unknown", "CC0-1.0": "any use"}
    found = classes_of(licences, {"licence": "own terms", "terms": {**allowed, "commercial": "forbidden"}})
    assert set(found.values()) == {"non-commercial"}
    assert classes_of({"CC0-1.0": 1}, {}) == {"CC0-1.0": "any use"}
