"""A dataset of several patients, and a search for what a withdrawal must not leave."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from pydantic import SecretStr

from ingest.job.run import JobReport, run_job
from ingest.settings import IngestSettings
from ingest.source.spec import SourceSpec, from_flags
from shards.dataset.dataset import Dataset
from tests.ingest.material import encoded, photo, write_folder

SECRET = SecretStr("the owner's")
PATIENTS = 4
IMAGES = 3


def patients_spec(name: str = "ward", modality: str = "Fundus") -> SourceSpec:
    return from_flags(name=name, modality=modality, grouping={"by": "path", "pattern": r"^([^/]+)/"})


def write_patients(folder: Path, numbers: Iterable[int] = range(PATIENTS), *, more: Mapping[str, bytes] = {}) -> Path:
    files = {
        f"patient-{number}/{image}.png": encoded(photo(100 * number + image))
        for number in numbers
        for image in range(IMAGES)
    }
    return write_folder(folder, {**files, **more})


def take_in(raw: Path, url: str, spec: SourceSpec | None = None, **settings: Any) -> JobReport:
    checked = IngestSettings(secret=SECRET, unit_files=2, **settings)
    return run_job(spec or patients_spec(), str(raw), url, workers=0, settings=checked)


def identifiers_of(dataset: Dataset, group_id: str) -> dict[str, list[bytes]]:
    """What of a group must not be found anywhere later: keys, hashes, the group, and the images' bytes."""
    rows = dataset.query("SELECT * FROM samples WHERE group_id = ?", params=[group_id]).to_pylist()
    images = [dataset.store.read_range(row["shard"], row["byte_offset"], row["byte_length"]) for row in rows]
    return {
        "key": [row["key"].encode() for row in rows],
        "pixels": [row["pixel_sha256"].encode() for row in rows],
        "pixels' head": [row["pixel_sha256"][:16].encode() for row in rows],
        "pixels' bytes": [bytes.fromhex(row["pixel_sha256"]) for row in rows],
        "group": [group_id.encode()],
        "image": images,
    }


def traces(dataset: Dataset, identifiers: Mapping[str, list[bytes]]) -> list[str]:
    """Where any of these is found: in objects as they are, and in what their Parquet pages hold."""
    found = []
    for info in dataset.store.list(hidden=True):
        data = dataset.store.read(info.path)
        texts = [data]
        if info.path.endswith(".parquet"):
            texts.append(repr(pq.read_table(io.BytesIO(data)).to_pylist()).encode())
        for kind, values in identifiers.items():
            if any(value in text or value in info.path.encode() for value in values for text in texts):
                found.append(f"{kind} in {info.path}")
    return found


def members_of(dataset: Dataset) -> dict[str, bytes]:
    """The members of all shards that the index names."""
    found = {}
    for shard in dataset.query("SELECT DISTINCT shard FROM samples")["shard"].to_pylist():
        with tarfile.open(fileobj=io.BytesIO(dataset.store.read(shard))) as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None
                found[member.name] = file.read()
    return found


def group_of(dataset: Dataset, patient: str) -> str:
    from ingest.privacy.pseudonyms import Pseudonyms

    found = Pseudonyms(patients_spec(), IngestSettings(secret=SECRET)).group_id(patient)
    assert len(dataset.query("SELECT 1 FROM samples WHERE group_id = ?", params=[found])) > 0
    return found
