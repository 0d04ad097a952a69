"""What is done to identifiers, as `dataset.json` states it.

The terms are those of DICOM PS3.15 Annex E (Attribute Confidentiality Profiles); codes are of PS3.16 CID 7050. The
statement says what the program does, not that a source holds no identifier.
"""

from __future__ import annotations

from typing import Any, Final

STATEMENT: Final[dict[str, Any]] = {
    "method": "Pixels and an allow-list of technical attributes leave a raw file, no text of it. Pictures are encoded "
    "anew, or re-assembled from what a decoder needs. Groups are keyed hashes (BLAKE2b); raw paths are kept for "
    "sources that are published de-identified, else they are keyed hashes.",
    "profile": {"code": "113100", "meaning": "Basic Application Confidentiality Profile", "actions": "all removed"},
    "options": {
        "clean_pixel_data": {
            "code": "113101",
            "applied": "by policy",
            "note": "Columns burned_in and burned_in_by of the index say what is known of each sample.",
        },
        "clean_recognizable_visual_features": {"code": "113102", "applied": "no", "note": "Faces are not removed."},
        "clean_graphics": {"code": "113103", "applied": "yes", "note": "Overlays and annotations are not drawn."},
        "clean_structured_content": {"code": "113104", "applied": "yes", "note": "Reports are not read."},
        "clean_descriptors": {"code": "113105", "applied": "no", "note": "Descriptors are removed, not cleaned."},
        "retain_longitudinal_temporal_information": {"code": "113106", "applied": "no"},
        "retain_patient_characteristics": {"code": "113108", "applied": "no"},
        "retain_device_identity": {"code": "113109", "applied": "no"},
        "retain_uids": {"code": "113110", "applied": "no"},
        "retain_safe_private": {"code": "113111", "applied": "no"},
        "retain_institution_identity": {"code": "113112", "applied": "no"},
    },
}
