"""A bounded sample of what `tests.ingest.readers.fuzz` runs for as long as one likes."""

from __future__ import annotations

import pytest

from tests.ingest.readers.fuzz import READERS, fuzz, seeds, try_file


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
def test_mutations_of_real_files_do_no_harm(reader: str) -> None:
    assert fuzz([reader], seconds=5, iterations=300, seed=1) == []


@pytest.mark.parametrize("reader", ["images", "nifti", "nrrd", "metaimage", "numpy"])
def test_the_sound_files_are_read(reader: str) -> None:
    assert all(not try_file(reader, name, data) for name, data in seeds(reader))
