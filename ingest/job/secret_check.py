"""Does a secret belong to a dataset?

`secret.json` beside `dataset.json` holds a random salt and a keyed check value (BLAKE2b of the salt under the secret's
key), never the secret. The first job that uses the secret writes it. Datasets of earlier releases have none: there the
jobs tell, since the digest of a job's rules depends on the key.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import SecretStr

from ingest.job.identity import pipeline_of, rules_of
from ingest.picture.encoding import Encoding
from ingest.privacy.pseudonyms import Pseudonyms
from ingest.privacy.secret import VARIABLE, secret_file
from ingest.privacy.tombstones import has_tombstones
from ingest.settings import IngestSettings
from ingest.source.spec import SourceSpec
from shards.dataset.dataset import Dataset
from shards.errors import AlreadyExistsError, ConfigError, NotFoundError, SampleIndexError
from shards.settings import parse

Verdict = Literal["belongs", "wrong", "missing", "unused", "unknown"]
"""`unused`: nothing of the dataset depends on a secret; `unknown`: an earlier release made it, and nothing tells."""

_FILE: Final = "secret.json"
_BYTES: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyedJob:
    """A committed job whose groups hang on the secret.

    Attributes:
        job_id: The job.
        spec: Its source.
        settings: Its settings, without the secret.
        pipeline_version: Whose rules it followed.
    """

    job_id: str
    spec: SourceSpec
    settings: IngestSettings
    pipeline_version: int


def judge_secret(dataset: Dataset, secret: SecretStr) -> Verdict:
    """Compare a secret with what a dataset was made with.

    Raises:
        SampleIndexError: `secret.json` is damaged.
        StoreError: The storage failed.
    """
    stored = _read(dataset)
    given = secret.get_secret_value()
    if stored is not None:
        if not given:
            return "missing"
        return "belongs" if hmac.compare_digest(_check(secret, stored["salt"]), stored["check"]) else "wrong"
    jobs = list(keyed_jobs(dataset))
    if not jobs:
        return "unused"
    if not given:
        return "missing"
    return "belongs" if any(_made_with(dataset, job, secret) for job in reversed(jobs)) else "unknown"


def require_secret(dataset: Dataset, secret: SecretStr) -> None:
    """Refuse to work with a dataset whose secret is not at hand.

    Raises:
        ConfigError: The secret is missing, or another one.
    """
    verdict = judge_secret(dataset, secret)
    if verdict in ("missing", "wrong"):
        what = "there is none here" if verdict == "missing" else "the one here is another"
        raise ConfigError(
            f"{dataset.url} was made with a secret, and {what}",
            hint=f"bring it back to {secret_file()} or set {VARIABLE}; "
            f"`biovfm secret explain {dataset.url}` says what hangs on it",
        )


def check_secret(dataset: Dataset, spec: SourceSpec, settings: IngestSettings) -> None:
    """Refuse a job that needs the secret of a dataset, for its groups or for tombstones, and does not have it.

    Raises:
        ConfigError: The secret is missing, or another one.
    """
    if not spec.deidentified or has_tombstones(dataset):
        require_secret(dataset, settings.secret)


def needs_no_other(url: str) -> bool:
    """Whether a new secret may be made for the dataset at `url`, which may not be there yet."""
    dataset = Dataset.find(url)
    return dataset is None or judge_secret(dataset, SecretStr("")) == "unused"


def pin_secret(dataset: Dataset, secret: SecretStr, *, for_tombstones: bool = False) -> None:
    """Write the check value of a secret that is about to be used, where the dataset has none yet.

    Args:
        dataset: The dataset.
        secret: The secret.
        for_tombstones: Also where nothing tells whether it belongs: from now on tombstones hang on it.

    Raises:
        ConfigError: The dataset was made with another secret.
    """
    verdict = judge_secret(dataset, secret)
    if _read(dataset) is None and (verdict in ("belongs", "unused") or (for_tombstones and verdict == "unknown")):
        salt = secrets.token_hex(_BYTES)
        values = {"salt": salt, "check": _check(secret, salt)}
        with suppress(AlreadyExistsError):  # another job was quicker
            dataset.store.put_if_absent(_FILE, (json.dumps(values, indent=2, sort_keys=True) + "\n").encode())
    require_secret(dataset, secret)


def keyed_jobs(dataset: Dataset) -> Iterator[KeyedJob]:
    """The committed jobs of sources whose groups are hashed with the secret, oldest first."""
    for job in dataset.jobs():
        if not job.get("spec"):
            continue
        spec = parse(SourceSpec, job["spec"], where=f"job {job['job_id']}")
        if not spec.deidentified:
            yield KeyedJob(
                job_id=str(job["job_id"]),
                spec=spec,
                settings=parse(IngestSettings, job.get("settings", {}), where=f"job {job['job_id']}"),
                pipeline_version=int(job.get("pipeline_version", pipeline_of(dataset))),
            )


def _made_with(dataset: Dataset, job: KeyedJob, secret: SecretStr) -> bool:
    """Whether the rules of a job, as its raw files name them, are those of this secret."""
    names = Pseudonyms(job.spec, job.settings.model_copy(update={"secret": secret}))
    rules = rules_of(
        job.spec,
        job.settings,
        Encoding.of_dataset(dataset.settings),
        key_check=names.key_check,
        pipeline=job.pipeline_version,
    )
    found = dataset.query("SELECT 1 FROM raw_files WHERE job_id = ? AND rules = ? LIMIT 1", params=[job.job_id, rules])
    return len(found) > 0


def _read(dataset: Dataset) -> Mapping[str, str] | None:
    try:
        values: Any = json.loads(dataset.store.read(_FILE))
        return {"salt": str(values["salt"]), "check": str(values["check"])}
    except NotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise SampleIndexError(
            f"{dataset.url}/{_FILE} is damaged", hint="bring it back from a copy of the dataset"
        ) from error


def _check(secret: SecretStr, salt: str) -> str:
    key = hashlib.blake2b(secret.get_secret_value().encode(), digest_size=32).digest()
    return hashlib.blake2b(salt.encode(), digest_size=_BYTES, key=key, person=b"secret check").hexdigest()
