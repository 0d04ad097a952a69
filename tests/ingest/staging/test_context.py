"""Which rejects are tried again."""

from __future__ import annotations

from ingest.staging.context import Retry


def test_a_frame_is_tried_again_where_it_or_its_file_was_rejected_and_it_is_not_kept() -> None:
    retry = Retry(
        wanted={"a.nii": frozenset({"z0001"}), "b.nii": frozenset({""})}, kept={"b.nii": frozenset({"z0002"})}
    )
    assert retry.takes("a.nii", "z0001")
    assert not retry.takes("a.nii", "z0002")
    assert retry.takes("b.nii", "z0001")
    assert not retry.takes("b.nii", "z0002")
    assert not retry.takes("c.nii", "")
