"""What a person writes to ask for a sweep, as YAML.

    dataset: ./data                  # or a URL
    recipes: [tiny, tiny-dinov2]     # names or YAML files
    models: [nano, tiny]             # null keeps the recipe's own
    fractions: [0.5, 1.0]
    modalities: [all, [CT, MR]]
    seeds: [0]
    set: {run.steps: 200}            # settings of every recipe
    probe: {tasks: breast, data: ~/medmnist}
    slurm: {time: "04:00:00", gpus: 1}

The runs are all combinations. Each one's id holds a digest of its resolved recipe, its lock and its probe, so a
changed setting is another run and an unchanged one is found finished.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from eval.probes.options import ProbeChoice
from shards.settings import load_yaml, parse

Modality = Literal["all"] | list[str]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SlurmSettings(_Section):
    """Of the array script.

    Attributes:
        partition: Null leaves it to the cluster.
        time: Wall time of one run, HH:MM:SS.
        nodes: Of one run.
        gpus: On each node.
        cpus: Of each node.
        at_once: Array tasks that may run at the same time; null for all.
        setup: Shell lines before the run, such as `module load` or activating an environment.
        options: Further `#SBATCH` options, without the dashes.
    """

    partition: str | None = None
    time: str = "24:00:00"
    nodes: Annotated[int, Field(gt=0)] = 1
    gpus: Annotated[int, Field(ge=0)] = 1
    cpus: Annotated[int, Field(gt=0)] = 8
    at_once: Annotated[int, Field(gt=0)] | None = None
    setup: list[str] = []
    options: dict[str, str] = {}


class Grid(_Section):
    """A sweep, as it stands in its file.

    Attributes:
        dataset: Folder or URL.
        index_version: Index version to pin; null takes the newest at planning time.
        recipes: Recipe names or files: the algorithms.
        models: Sizes; null keeps the recipe's own.
        fractions: Shares of the samples, of each modality alike.
        modalities: `all`, or lists of tags: the mixes.
        seeds: Of the runs.
        subset_seed: Of the sampling; a smaller fraction with the same seed lies within a larger one.
        set: Settings of every recipe, such as `run.steps`.
        launcher: Command in front of `biovfm pretrain`; `[torchrun, --nproc-per-node, 8]` takes eight GPUs.
        probe: How every run is probed.
        slurm: Of the array script.
    """

    dataset: str
    index_version: int | None = None
    recipes: Annotated[list[str], Field(min_length=1)]
    models: Annotated[list[str | None], Field(min_length=1)] = [None]
    fractions: Annotated[list[Annotated[float, Field(gt=0, le=1)]], Field(min_length=1)] = [1.0]
    modalities: Annotated[list[Modality], Field(min_length=1)] = ["all"]
    seeds: Annotated[list[int], Field(min_length=1)] = [0]
    subset_seed: int = 0
    set: dict[str, Any] = {}
    launcher: list[str] | None = None
    probe: ProbeChoice = ProbeChoice()
    slurm: SlurmSettings = SlurmSettings()

    @field_validator("modalities")
    @classmethod
    def _tags_not_empty(cls, mixes: list[Modality]) -> list[Modality]:
        if any(not mix for mix in mixes):
            msg = "an empty list of modalities selects nothing; write `all`"
            raise ValueError(msg)
        return mixes


def read_grid(path: Path) -> Grid:
    """Read a grid.

    Raises:
        ConfigError: The file is missing, or settings are unknown or wrong; all of them are named.
    """
    return parse(Grid, load_yaml(path), where=str(path))
