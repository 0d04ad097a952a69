"""Arrays in one block."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from train.feed.blocks import block_bytes, pack, unpack

pytestmark = pytest.mark.torch

ARRAYS = st.dictionaries(
    st.text(max_size=5),
    st.sampled_from([np.bool_, np.uint8, np.int64, np.float32, np.float64]).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=7))
    ),
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(ARRAYS)
def test_what_is_packed_comes_out_again(arrays: dict[str, np.ndarray]) -> None:
    block = np.zeros(block_bytes(arrays) + 100, np.uint8)
    pack(arrays, block)
    tensors = unpack(arrays, torch.from_numpy(block))
    assert list(tensors) == list(arrays)
    for name, array in arrays.items():
        assert tensors[name].shape == array.shape
        assert np.array_equal(tensors[name].numpy(), array, equal_nan=array.dtype.kind == "f")


def test_transposed_arrays_are_packed_by_value() -> None:
    array = np.arange(6).reshape(2, 3).T
    block = np.zeros(64, np.uint8)
    pack({"x": array}, block)
    assert unpack({"x": array}, torch.from_numpy(block))["x"].tolist() == array.tolist()
