"""The dataset that a job writes to: its encoding policy and the pipeline version that it was made by.

Both are decided by the first sample. A dataset that holds none (nothing was ingested yet, or the first ingest failed)
takes the policy that is asked for and the version of this release.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ingest.job.identity import PIPELINE_VERSION, pipeline_of
from ingest.picture.encoding import Encoding
from ingest.privacy.statement import STATEMENT
from ingest.staging.folder import sweep_jobs
from shards.dataset.dataset import Dataset
from shards.errors import ConfigError
from shards.settings import parse
from shards.store import open_store


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A dataset that was opened, or is still to be made.

    Attributes:
        dataset: The dataset; nothing is written before `made` is called.
        encoding: Its policy.
        pipeline_version: The version of the pipeline whose rules it follows.
        is_pinned: Whether `dataset.json` says both already.
    """

    dataset: Dataset
    encoding: Encoding
    pipeline_version: int
    is_pinned: bool

    def made(self) -> Dataset:
        """The dataset, with its `dataset.json` written where that was still to be done.

        Raises:
            ConfigError: Another job made it meanwhile, with another policy.
        """
        if self.is_pinned:
            return self.dataset
        policy = self.encoding.model_dump()
        dataset = Dataset.find(self.dataset.url)
        if dataset is None:
            dataset = Dataset.create(
                self.dataset.url,
                encoding=policy,
                pipeline_version=self.pipeline_version,
                deidentification=STATEMENT,
            )
        elif dataset.settings == self.dataset.settings:  # as it was when the job looked at it
            if pipeline_of(dataset) != self.pipeline_version:
                sweep_jobs(dataset)  # staged by other rules
            dataset = dataset.recreate(
                encoding=policy, pipeline_version=self.pipeline_version, deidentification=STATEMENT
            )
        self.check(dataset)
        return dataset

    def check(self, dataset: Dataset) -> None:
        """Compare `dataset.json` with what the job works by.

        Raises:
            ConfigError: They differ.
        """
        has = Encoding.of_dataset(dataset.settings)
        if has != self.encoding:
            raise ConfigError(
                f"{dataset.url} got another encoding policy from another job while this one ran",
                hint="run the command again; give --encoding as the other job did, or use another dataset",
            )

    def require_current(self, *, keep_pipeline: bool) -> str:
        """Check that new samples follow the rules of those that the dataset holds.

        Args:
            keep_pipeline: Whether samples by other rules may join them.

        Returns:
            A sentence for the report where they do; else nothing.

        Raises:
            ConfigError: The dataset was made by another version of the pipeline.
        """
        if self.pipeline_version == PIPELINE_VERSION:
            return ""
        state = f"{self.dataset.url} was made by pipeline version {self.pipeline_version}"
        if self.pipeline_version > PIPELINE_VERSION:
            raise ConfigError(
                f"{state}, this release has {PIPELINE_VERSION}", hint="use the release that made the dataset"
            )
        if not keep_pipeline:
            raise ConfigError(
                f"{state}; the rules of version {PIPELINE_VERSION} give other bytes for the same raw data",
                hint="--remap NEW_DATASET makes a new dataset by the new rules, --keep-pipeline goes on in this one",
            )
        return (
            f"{state}; this job's samples follow the rules of version {PIPELINE_VERSION} (recorded with the job), and "
            "copies of older samples may go unnoticed"
        )


def open_target(url: str, wanted: Mapping[str, Any] | None = None) -> Target:
    """Look at the dataset of a job; nothing is written.

    Args:
        url: Folder or object-store prefix.
        wanted: Keys of the encoding policy; those of a dataset that holds samples must be the same.

    Raises:
        ConfigError: A key or value of the policy is unknown, the dataset has another policy, or this machine lacks
            what the policy asks for.
    """
    wanted = wanted or {}
    asked = parse(Encoding, wanted, where="--encoding")
    asked.require()
    dataset = Dataset.find(url)
    if dataset is None:
        policy = Encoding.of_new_dataset(wanted)
        policy.require()
        store = open_store(url)
        unmade = Dataset(store.url, store, {"encoding": policy.model_dump()})
        return Target(dataset=unmade, encoding=policy, pipeline_version=PIPELINE_VERSION, is_pinned=False)
    policy = Encoding.of_dataset(dataset.settings)
    others = [name for name in wanted if getattr(policy, name) != getattr(asked, name)]
    version = pipeline_of(dataset)
    if (others or version < PIPELINE_VERSION) and dataset.is_empty():
        policy = policy.model_copy(update={name: getattr(asked, name) for name in wanted})
        policy.require()
        return Target(dataset=dataset, encoding=policy, pipeline_version=PIPELINE_VERSION, is_pinned=False)
    if others:
        has, asks = (", ".join(f"{name}={getattr(one, name)}" for name in others) for one in (policy, asked))
        raise ConfigError(
            f"{dataset.url} is encoded with {has}, not {asks}; a dataset keeps the policy it was made with",
            hint=f"leave out --encoding {others[0]}=…, or ingest into a new dataset",
        )
    policy.require()
    return Target(dataset=dataset, encoding=policy, pipeline_version=version, is_pinned=True)


def require_apart(raw_url: str, dataset_url: str) -> None:
    """Refuse a dataset that is the raw folder itself; one inside of it is left out of the listing.

    Raises:
        ConfigError: It is.
    """
    one, two = (url.rstrip("/") if "://" in url else os.path.realpath(url) for url in (raw_url, dataset_url))
    if one == two:
        raise ConfigError(
            f"{dataset_url} is the folder of the raw data: their next listing would hold the dataset's own shards",
            hint=f"give the dataset a folder of its own, such as {dataset_url.rstrip('/')}/data",
        )
