"""The values file of `biovfm deploy render`: everything that differs from one place to another. It holds no secret."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

__all__ = ["Values"]

Plain = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_./:@=+,\-]*$", max_length=300)]
"""Text that means the same in YAML, shell and HCL: no blanks, quotes or expansions."""
Given = Annotated[Plain, StringConstraints(min_length=1)]
"""Text that may not be empty."""
Word = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9\-]{0,40}[a-z0-9])?$")]
"""A name that Kubernetes takes."""
Size = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]*(Mi|Gi|Ti)$")]
Time = Annotated[str, StringConstraints(pattern=r"^([0-9]+-)?[0-9]{1,2}:[0-9]{2}:[0-9]{2}$")]
Count = Annotated[int, Field(ge=1)]


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

    bucket: Word = "biovfm"
    dataset: Plain = ""
    region: Given = "us-east-1"
    endpoint: Plain = ""


class Source(_Section):
    """A source to ingest: its id in the catalogue, and the URL of its raw files."""

    source: Word
    raw: Given


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
    engine: Annotated[str, StringConstraints(pattern="^(job|ray)$")] = "job"
    tasks: Count = 16
    cpus: Count = 8
    memory: Size = "16Gi"


class Pretrain(_Section):
    """A pretraining run.

    Attributes:
        data: URL of the dataset, or path of a lock that the nodes see; `storage.dataset` where it is left out.
        recipe: Name or path of a recipe.
        out: Folder of the run; a URL where nodes share no file system, `runs/RECIPE` in the bucket by default.
        nodes: Machines.
        gpus: Of each.
        cpus: Of each.
        memory: Of each.
    """

    data: Plain = ""
    recipe: Given = "dinov2-short"
    out: Plain = ""
    nodes: Count = 1
    gpus: Count = 8
    cpus: Count = 64
    memory: Size = "256Gi"


class Probe(_Section):
    """Probes and sweeps.

    Attributes:
        checkpoints: Run folders or exports to probe, one array task each.
        tasks: MedMNIST tasks, `all` or names separated by commas.
        grid: YAML file of a sweep; empty for none.
    """

    checkpoints: tuple[Plain, ...] = ()
    tasks: Given = "all"
    grid: Plain = ""


class Compose(_Section):
    """One machine.

    Attributes:
        s3_image: Image of the S3 server.
        raw: Folder of raw files.
    """

    s3_image: Given = "chrislusf/seaweedfs:4.48"
    raw: Given = "./raw"


class Kubernetes(_Section):
    """A Kubernetes cluster.

    Attributes:
        namespace: Made by the manifests.
        secret: Name of a secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; pods start without it too.
        role_arn: Role of the service account; empty for none.
        cache: Size of each pod's cache volume.
    """

    namespace: Word = "biovfm"
    secret: Word = "biovfm-s3"  # noqa: S105 - the name of a secret
    role_arn: Plain = ""
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
        dataset = self.storage.dataset or f"{bucket}/data"
        data = self.pretrain.data or dataset
        out = self.pretrain.out or f"{bucket}/runs/{PurePosixPath(self.pretrain.recipe).stem}"
        for key, url in {"storage.dataset": dataset, "pretrain.out": out}.items():
            if url.startswith("s3://") and not url.startswith(f"{bucket}/"):
                raise ValueError(f"{key} is {url}, which is not in a folder of storage.bucket ({self.storage.bucket})")
        if "://" not in dataset and not dataset.startswith("/"):
            raise ValueError(f"storage.dataset is {dataset}: give a URL, as pods and nodes have folders of their own")
        filled = {
            "storage": self.storage.model_copy(update={"dataset": dataset}),
            "pretrain": self.pretrain.model_copy(update={"data": data, "out": out}),
        }
        self.__dict__.update(filled)
        return self

    @field_validator("ingest")
    @classmethod
    def _no_source_twice(cls, ingest: Ingest) -> Ingest:
        names = [source.source for source in ingest.sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"source {twice[0]} stands there twice")
        return ingest
