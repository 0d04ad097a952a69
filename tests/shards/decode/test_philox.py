from __future__ import annotations

import numpy as np
import pytest

from shards.decode.philox import bounded, fold, permutation, philox, uniform, words

KNOWN_ANSWERS = [  # Random123's kat_vectors, philox4x32-10: counter, key, answer
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def hexes(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_known_answers(counter: str, key: str, answer: str) -> None:
    low, high = hexes(key)
    c0, c1, c2, c3 = hexes(counter)
    assert philox(low | (high << 32), (c0, c1, c2, c3)).tolist() == hexes(answer)


def test_vectors_equal_scalars() -> None:
    keys = np.array([[1], [2**64 - 1], [2**40 + 3]], np.uint64)
    many = philox(keys, (np.arange(5), 7, 0, 2**32 - 1))
    assert many.shape == (3, 5, 4)
    assert many.dtype == np.uint32
    for row in range(3):
        for column in range(5):
            one = philox(keys[row, 0], (column, 7, 0, 2**32 - 1))
            assert np.array_equal(many[row, column], one)


def test_uniform_numbers_are_uniform_and_independent() -> None:
    ours = uniform(12345, 100_000)
    assert ours.min() >= 0
    assert ours.max() < 1
    assert abs(ours.mean() - 0.5) < 4 * 0.2887 / np.sqrt(ours.size)
    histogram, _ = np.histogram(ours, 64, (0, 1))
    expected = ours.size / 64
    assert ((histogram - expected) ** 2 / expected).sum() < 110  # chi-square, 63 degrees: p = 2e-4
    assert abs(np.corrcoef(ours[:-1], ours[1:])[0, 1]) < 4 / np.sqrt(ours.size)


@pytest.mark.parametrize("num", [0, 1, 2, 3, 1000])
def test_words_are_a_prefix_of_more_words(num: int) -> None:
    assert np.array_equal(words(9, num), words(9, num + 5)[:num])


def test_streams_and_keys_differ() -> None:
    assert not np.array_equal(words(1, 8), words(2, 8))
    assert not np.array_equal(words(1, 8), words(1, 8, stream=1))


@pytest.mark.parametrize("num", [0, 1, 2, 17, 4096])
def test_permutation_holds_every_element_once(num: int) -> None:
    order = permutation(num, 3)
    assert np.array_equal(np.sort(order), np.arange(num))
    assert np.array_equal(order, permutation(num, 3))


@pytest.mark.slow
def test_permutations_are_uniform() -> None:
    counts = np.zeros((5, 5))
    for key in range(5000):
        counts[np.arange(5), permutation(5, key)] += 1
    assert ((counts - 1000) ** 2 / 1000).sum() < 50  # 16 degrees of freedom


def test_fold_is_vectorised_ordered_and_free_of_collisions() -> None:
    folded = fold(7, np.arange(100_000))
    assert np.unique(folded).size == folded.size
    assert fold(7, 5, 6) == fold(fold(7, 5), 6)
    assert fold(7, 5, 6) != fold(7, 6, 5)
    assert folded[5] == fold(7, 5)
    assert fold(7, 2**63) != fold(7, 0)


def test_bounded_covers_its_range() -> None:
    numbers = bounded(philox(1, (np.arange(3000), 0, 0, 0)), 7)
    assert set(np.unique(numbers)) == set(range(7))
    assert bounded(np.array([2**32 - 1], np.uint32), 2**31)[0] == 2**31 - 1


def test_values_are_pinned() -> None:
    assert permutation(8, 2026, stream=4).tolist() == [1, 7, 0, 4, 6, 3, 2, 5]
    assert int(fold(2026, 1, 2)) == 0xB12A91A536E066EB
