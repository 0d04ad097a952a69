"""The values file of `biovfm deploy render`: everything that differs from one place to another. It holds no secret."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

__all__ = ["Values"]

_LONGEST = 300


def _text(pattern: str, says: str) -> BeforeValidator:
    """Text that matches a pattern as a whole; what it may be is said in words."""

    def checked(value: object) -> object:
        if not isinstance(value, str):
            raise ValueError(f"YAML reads {value!r} here, which is no text: write it in quotes")
        if len(value) > _LONGEST or not re.fullmatch(pattern, value):
            raise ValueError(f"{value!r} is not {says}")
        return value

    return BeforeValidator(checked)


_SAFE = r"[A-Za-z0-9_./:@=+,\-]"
_FIRST = r"[A-Za-z0-9_./:@=+,]"
Plain = Annotated[
    str, _text(rf"({_FIRST}{_SAFE}*)?", "text of letters, digits and _ . / : @ = + , -, the last not at its beginning")
]
"""Text that means the same in YAML, shell and HCL: no blanks, quotes or expansions; nor is it an option."""
Given = Annotated[
    str, _text(rf"{_FIRST}{_SAFE}*", "text of letters, digits and _ . / : @ = + , -, the last not at its beginning")
]
"""Text that may not be empty."""
Option = Annotated[str, _text(rf"--[a-z][a-z-]*(={_SAFE}+)?", "an option, such as --modality=US")]
Word = Annotated[
    str, _text(r"[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?", "a name of at most 42 small letters, digits and - between them")
]
"""A name that Kubernetes takes."""
Bucket = Annotated[
    str, _text(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", "the name of a bucket: 3 to 63 small letters, digits, . and -")
]
Region = Annotated[str, _text(r"[a-z0-9-]+", "a region, such as eu-central-1")]
Endpoint = Annotated[str, _text(r"(https?://[A-Za-z0-9._:\[\]/-]+)?", "a URL that begins with http:// or https://")]
Folder = Annotated[str, _text(rf"\.{{0,2}}/{_SAFE}*", "a folder that begins with / or ./")]
Size = Annotated[str, _text(r"[1-9][0-9]{0,6}(Mi|Gi|Ti)", "a size, such as 16Gi")]
Time = Annotated[
    str, _text(r"([0-9]{1,3}-)?[0-9]{1,2}:[0-5][0-9]:[0-5][0-9]", "a time, such as 24:00:00 or 2-12:00:00")
]
Count = Annotated[int, Field(ge=1, le=65_536, strict=True)]

_SHORTEST_PART_SECONDS = 600
"""Three minutes before its end a part of a run is told to save and to queue itself again."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Image(_Section):
    """The container images.

    Attributes:
        repository: Where they are pushed to and pulled from.
        tag: Of the CPU image; the CUDA image's ends in `-cuda`.
        base: Debian image with Python; pin it by its digest.
        torch: Version in the CUDA image.
        torchvision: Likewise.
        ray: Version of Ray, the same in the image and on the cluster.
    """

    repository: Given = "registry.example.org/biovfm"
    tag: Given = "0.1.0"
    base: Given = "python:3.11.14-slim-bookworm"
    torch: Given = "2.14.1"
    torchvision: Given = "0.29.1"
    ray: Given = "2.60.0"


class Storage(_Section):
    """Object storage.

    Attributes:
        bucket: Name of the bucket.
        dataset: URL of the dataset; `data` in the bucket where it is left out.
        region: Of the bucket.
        endpoint: Of a store that is not AWS; empty for AWS.
    """

    bucket: Bucket = "biovfm"
    dataset: Plain = ""
    region: Region = "us-east-1"
    endpoint: Endpoint = ""


class Source(_Section):
    """A source to ingest.

    Attributes:
        source: Its id in the catalogue, or a name for one of your own.
        raw: URL of its raw files.
        options: More options of `biovfm ingest`; a source of your own has --modality among them.
    """

    source: Word
    raw: Given
    options: tuple[Option, ...] = ()


class Ingest(_Section):
    """Ingest jobs.

    Attributes:
        sources: One job each.
        engine: Kubernetes: an indexed `job`, or a `ray` cluster of its own.
        tasks: Pods, array tasks or Ray workers of a job.
        cpus: Of each.
        memory: Of each.
    """

    sources: tuple[Source, ...] = ()
    engine: Literal["job", "ray"] = "job"
    tasks: Count = 16
    cpus: Count = 8
    memory: Size = "16Gi"


class Pretrain(_Section):
    """A pretraining run.

    Attributes:
        data: URL of the dataset, or absolute path of a lock that SLURM's nodes see; `storage.dataset` where it is left
            out.
        recipe: Name or path of a recipe.
        out: URL of the run's folder, or an absolute path that SLURM's nodes share; `runs/RECIPE` in the bucket by
            default.
        nodes: Machines.
        gpus: Of each.
        cpus: Of each.
        memory: Of each.
        options: More options of `biovfm pretrain`, such as --set=run.unit_images=32.
    """

    data: Plain = ""
    recipe: Given = "dinov2-short"
    out: Plain = ""
    nodes: Count = 1
    gpus: Count = 8
    cpus: Count = 64
    memory: Size = "256Gi"
    options: tuple[Option, ...] = ()


class Probe(_Section):
    """Probes and sweeps.

    Attributes:
        checkpoints: Run folders or exports to probe, one array task each.
        tasks: MedMNIST tasks, `all` or names separated by commas.
        grid: YAML file of a sweep, whose section `slurm` names the partition of its runs; empty for none.
    """

    checkpoints: tuple[Given, ...] = ()
    tasks: Given = "all"
    grid: Plain = ""


class Compose(_Section):
    """One machine.

    Attributes:
        s3_image: Image of the S3 server.
        raw: Folder of raw files.
    """

    s3_image: Given = "chrislusf/seaweedfs:4.48"
    raw: Folder = "./raw"


class Roles(_Section):
    """ARNs of the roles that `terraform output role_arns` prints; empty where pods have keys."""

    ingest: Plain = ""
    training: Plain = ""
    pages: Plain = ""


class Kubernetes(_Section):
    """A Kubernetes cluster.

    Attributes:
        namespace: Made by the manifests.
        secret: Name of a secret of your own, whose keys become environment variables: AWS_ACCESS_KEY_ID and
            AWS_SECRET_ACCESS_KEY where no role gives access, BIOVFM_SECRET where a source is not de-identified.
        roles: Of the three service accounts.
        scratch: Size of the volume for temporary files of an ingest pod.
        cache: Size of the volume for blocks of shards of a training pod.
    """

    namespace: Word = "biovfm"
    secret: Word = "biovfm-secret"  # noqa: S105 - the name of a secret
    roles: Roles = Roles()
    scratch: Size = "50Gi"
    cache: Size = "200Gi"


class Slurm(_Section):
    """A SLURM cluster.

    Attributes:
        partition: For jobs without GPUs.
        gpu_partition: For those with.
        account: Charged; empty for the default.
        time: Limit of ingest tasks and probes.
        pretrain_time: Limit of one part of a pretraining run, which queues itself again.
        environment: File to source before anything else, such as a virtual environment's `activate`.
    """

    partition: Given = "cpu"
    gpu_partition: Given = "gpu"
    account: Plain = ""
    time: Time = "12:00:00"
    pretrain_time: Time = "24:00:00"
    environment: Plain = ""


class Values(_Section):
    """Everything that the templates ask for; each has a default."""

    name: Word = "biovfm"
    image: Image = Image()
    storage: Storage = Storage()
    ingest: Ingest = Ingest()
    pretrain: Pretrain = Pretrain()
    probe: Probe = Probe()
    compose: Compose = Compose()
    kubernetes: Kubernetes = Kubernetes()
    slurm: Slurm = Slurm()

    @model_validator(mode="after")
    def _in_the_bucket(self) -> Self:
        """Fill what is left out, and refuse what the roles of the bucket would not reach."""
        bucket = f"s3://{self.storage.bucket}"
        dataset = (self.storage.dataset or f"{bucket}/data").rstrip("/")
        data = (self.pretrain.data or dataset).rstrip("/")
        out = (self.pretrain.out or f"{bucket}/runs/{PurePosixPath(self.pretrain.recipe).stem}").rstrip("/")
        for key, url in {"storage.dataset": dataset, "pretrain.out": out, "pretrain.data": data}.items():
            if url.startswith("s3:") and not url.startswith(f"{bucket}/"):
                raise ValueError(f"{key} is {url}, which is no folder in storage.bucket ({self.storage.bucket})")
            if "://" not in url and not url.startswith("/"):
                raise ValueError(f"{key} is {url}: give a URL or an absolute path, as nodes start in other folders")
        filled = {
            "storage": self.storage.model_copy(update={"dataset": dataset}),
            "pretrain": self.pretrain.model_copy(update={"data": data, "out": out}),
        }
        self.__dict__.update(filled)
        return self

    @field_validator("slurm")
    @classmethod
    def _time_to_save(cls, slurm: Slurm) -> Slurm:
        if _seconds(slurm.pretrain_time) < _SHORTEST_PART_SECONDS:
            raise ValueError(f"pretrain_time is {slurm.pretrain_time}: give 00:10:00 at least")
        return slurm

    @field_validator("ingest")
    @classmethod
    def _no_source_twice(cls, ingest: Ingest) -> Ingest:
        names = [source.source for source in ingest.sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"source {twice[0]} stands there twice")
        return ingest


def _seconds(time: str) -> int:
    days, _, clock = time.rpartition("-")
    hours, minutes, seconds = map(int, clock.split(":"))
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds
