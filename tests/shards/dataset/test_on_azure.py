"""A dataset on `az://`: three commits and all that reads them, on the emulator of Azure's makers."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from shards.dataset.dataset import Dataset
from shards.dataset.verify import verify
from shards.errors import ConfigError
from shards.subset.lock import create
from shards.subset.selection import Selection
from tests.shards.builders import small_dataset
from tests.shards.store import emulators


@pytest.fixture
def container(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with emulators.azurite() as endpoint:
        name = f"test-{uuid.uuid4().hex[:12]}"
        emulators.make_container(endpoint, name)
        monkeypatch.setenv("AZURE_STORAGE_USE_EMULATOR", "true")
        monkeypatch.setenv("AZURITE_BLOB_STORAGE_URL", endpoint.rpartition("/")[0])
        yield f"az://{name}"


@pytest.mark.slow
def test_a_dataset_on_the_emulator(container: str) -> None:
    dataset = small_dataset(f"{container}/some/data")
    opened = Dataset.open(dataset.url)
    assert opened.version() == 2
    assert create(opened, Selection(modality=("CT",))).num_samples == 60
    assert not verify(opened, deep=True).problems
    program = str(Path(sys.executable).parent / "biovfm")
    for call in (["stats", dataset.url], ["stream", dataset.url, "--keys", "--global-batch", "24"]):
        done = subprocess.run([program, *call], capture_output=True, text=True, env=dict(os.environ), check=False)
        assert done.returncode == 0, done.stderr


def test_an_endpoint_of_an_emulator_without_its_switch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_USE_EMULATOR", raising=False)
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", "http://127.0.0.1:1/devstoreaccount1")
    for use in (Dataset.create, Dataset.find):
        with pytest.raises(ConfigError, match="AZURE_STORAGE_USE_EMULATOR=true"):
            use("az://container/data")
    monkeypatch.setenv("AZURE_STORAGE_USE_EMULATOR", "true")
    with pytest.raises(ConfigError, match="may not hold"):
        Dataset.find("az://container/da#ta")
