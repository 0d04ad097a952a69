"""What readers share: the range of intensities."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.readers import base
from ingest.readers.base import percentile_range


@given(
    shape=st.lists(st.integers(1, 9), min_size=2, max_size=4),
    order=st.permutations(range(4)),
    backwards=st.sets(st.integers(0, 3)),
    most=st.integers(1, 400),
)
def test_a_range_is_of_evenly_spaced_values_whichever_way_the_axes_run(
    shape: list[int], order: list[int], backwards: set[int], most: int
) -> None:
    stored = np.random.default_rng(0).integers(-1000, 1000, shape).astype(np.int16)
    axes = [axis for axis in order if axis < len(shape)]
    volume = np.flip(stored.transpose(axes), [axis for axis in backwards if axis < len(shape)])
    step = volume.size // most + 1 if volume.size > most else 1
    sample = volume.ravel(order="K")[::step]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "_MOST_SAMPLED", most)
        low, high = percentile_range(volume)
    if sample.min() < sample.max():
        assert (low, high) == tuple(np.percentile(sample, (0.5, 99.5)))
    else:
        assert low == sample[0]
