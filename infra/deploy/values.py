"""The values file of `biovfm deploy render`: everything that differs from one place to another. It holds no secret."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

__all__ = ["Values"]

Plain = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_./:@=+,\-]*$", max_length=300)]
"""Text that means the same in YAML, shell and HCL: no blanks, quotes or expansions."""
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

    repository: Plain = "registry.example.org/biovfm"
    tag: Plain = "0.1.0"
    base: Plain = "python:3.11.14-slim-bookworm"
    torch: Plain = "2.14.1"
    torchvision: Plain = "0.29.1"
    ray: Plain = "2.60.0"


class Storage(_Section):
    """Object storage.

    Attributes:
        bucket: Name of the bucket.
        dataset: URL of the dataset.
        region: Of the bucket.
        endpoint: Of a store that is not AWS; empty for AWS.
    """

    bucket: Word = "biovfm"
    dataset: Plain = "s3://biovfm/data"
    region: Plain = "us-east-1"
    endpoint: Plain = ""


class Source(_Section):
    """A source to ingest: its id in the catalogue, and the URL of its raw files."""

    source: Word
    raw: Plain


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
        data: URL of the dataset, or path of a lock that the nodes see.
        recipe: Name or path of a recipe.
        out: Folder of the run; a URL where nodes share no file system.
        nodes: Machines.
        gpus: Of each.
        cpus: Of each.
        memory: Of each.
    """

    data: Plain = "s3://biovfm/data"
    recipe: Plain = "dinov2-short"
    out: Plain = "s3://biovfm/runs/dinov2"
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
    tasks: Plain = "all"
    grid: Plain = ""


class Compose(_Section):
    """One machine.

    Attributes:
        s3_image: Image of the S3 server.
        raw: Folder of raw files.
    """

    s3_image: Plain = "chrislusf/seaweedfs:4.48"
    raw: Plain = "./raw"


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

    partition: Plain = "cpu"
    gpu_partition: Plain = "gpu"
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

    @field_validator("ingest")
    @classmethod
    def _no_source_twice(cls, ingest: Ingest) -> Ingest:
        names = [source.source for source in ingest.sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"source {twice[0]} stands there twice")
        return ingest
