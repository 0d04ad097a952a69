"""What ranks, positions and checkpoints compare."""

from __future__ import annotations

import pytest

from shards.errors import SubsetError
from shards.stream.digests import Digests, compare_ranks, compare_resumed

HERE = Digests(samples="md5sum128:aa", order="sha256:11", num_samples=7)
PACKED = Digests(samples="md5sum128:aa", order="sha256:22", num_samples=7)
OTHER = Digests(samples="md5sum128:bb", order="sha256:33", num_samples=7)


def test_equal_ranks_begin() -> None:
    compare_ranks([HERE.as_dict()])
    compare_ranks([{**HERE.as_dict(), "code_version": "1"}] * 3)


def test_ranks_that_differ_are_named_with_both_digests() -> None:
    with pytest.raises(SubsetError, match=r"ranks 0 and 2 differ in the digest of the order: sha256:11 \(a\) and sha2"):
        compare_ranks([HERE.as_dict(), HERE.as_dict(), PACKED.as_dict()], names=["a", "b", "c"])
    with pytest.raises(SubsetError, match="ranks 0 and 1 differ in the code version: 1 and 2"):
        compare_ranks([{**HERE.as_dict(), "code_version": "1"}, {**HERE.as_dict(), "code_version": "2"}])


def test_the_same_order_goes_on_without_a_word() -> None:
    assert compare_resumed(HERE.as_dict(), HERE, what="the checkpoint") == ""


def test_another_packing_is_refused_unless_accepted() -> None:
    with pytest.raises(SubsetError, match="packed into other shards: digest of the order sha256:11, here sha256:22"):
        compare_resumed(HERE.as_dict(), PACKED, what="the checkpoint")
    assert "another packing" in compare_resumed(HERE.as_dict(), PACKED, what="the checkpoint", accept_packing=True)


def test_other_samples_are_always_refused() -> None:
    with pytest.raises(SubsetError, match="saw other samples: digest md5sum128:aa, here md5sum128:bb"):
        compare_resumed(HERE.as_dict(), OTHER, what="the checkpoint", accept_packing=True)


@pytest.mark.parametrize(("was", "pins"), [("version:3", "the dataset's version"), ("sha256:old", "the samples")])
def test_what_an_earlier_release_wrote_is_read_with_a_line(was: str, pins: str) -> None:
    now = Digests(samples="md5sum128:aa", order="sha256:11", num_samples=7, earlier=was)
    assert f"pins {pins}, not the order" in compare_resumed(was, now, what="the checkpoint")
    with pytest.raises(SubsetError, match="or names them as an earlier release did"):
        compare_resumed(was, HERE, what="the checkpoint")
