"""Renders the templates: `@{section.key}` is a value, everything else stays as it is."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path, PurePosixPath
from string import Template
from typing import Any

from infra.deploy.values import Values
from shards.errors import ConfigError
from shards.files import write_text

__all__ = ["render"]

_HERE = Path(__file__).parent
_TEMPLATES = _HERE / "templates"
_PER_SOURCE = {"job": "kubernetes/ingest-job.yaml", "ray": "kubernetes/ingest-rayjob.yaml"}
_SCRIPTS = ("ingest.sbatch", "pretrain.sbatch", "probe.sbatch", "sweep.sbatch")


class _Braced(Template):
    """`@{a.b}` and nothing else: shell and HCL have words of their own for `$`."""

    delimiter = "@"
    pattern = r"""
        @(?:
            (?P<escaped>(?!)) | (?P<named>(?!)) |
            \{(?P<braced>[a-z_0-9]+(?:\.[a-z_0-9]+)*)\} |
            (?P<invalid>(?!))
        )
    """  # type: ignore[assignment]  # the class compiles it


def render(values: Values, out: Path) -> list[Path]:
    """Write the files of every platform; files that are there are replaced.

    Args:
        values: What differs from one place to another.
        out: Folder to write.

    Returns:
        The files, relative to `out`.

    Raises:
        ConfigError: `out` is a file.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file", hint="give a folder with --out")
    written = []
    for name, text in _files(values):
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
        if text.startswith("#!"):
            path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
        written.append(Path(name))
    for name in _SCRIPTS:
        shutil.copyfile(_HERE / name, out / "slurm" / name)
        written.append(Path("slurm") / name)
    return sorted(written)


def _files(values: Values) -> Iterator[tuple[str, str]]:
    """Name and text of each rendered file."""
    facts = _flat(values.model_dump())
    facts["release"] = metadata.version("biovfm")
    manifests = ["base.yaml", "pretrain-jobset.yaml", "serve.yaml"]
    template = _PER_SOURCE[values.ingest.engine]
    for source in values.ingest.sources:
        name = f"ingest-{source.source}.yaml"
        manifests.append(name)
        yield f"kubernetes/{name}", _fill(template, {**facts, **_flat({"source": source.model_dump()})})
    facts["kubernetes.resources"] = "\n".join(f"  - {name}" for name in manifests)
    facts["kubernetes.settings"] = "\n".join(f"      - {name}={value}" for name, value in _settings(values).items())
    role = values.kubernetes.role_arn
    facts["kubernetes.annotations"] = f'{{eks.amazonaws.com/role-arn: "{role}"}}' if role else "{}"
    facts |= _prefixes(values)
    facts["slurm.submissions"] = "\n".join(_submissions(values))
    for path in sorted(_TEMPLATES.rglob("*")):
        name = path.relative_to(_TEMPLATES).as_posix()
        if path.is_file() and name not in _PER_SOURCE.values():
            yield name, _fill(name, facts)


def _fill(name: str, facts: Mapping[str, str]) -> str:
    return _Braced((_TEMPLATES / name).read_text(encoding="utf-8")).substitute(facts)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """`{"a": {"b": 1}}` as `{"a.b": "1"}`; lists are left to those who know them."""
    found: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        elif not isinstance(value, (list, tuple)):
            found[prefix + key] = str(value)
    return found


def _settings(values: Values) -> dict[str, str]:
    """Environment variables of every pod; an empty endpoint would not be AWS but an error."""
    endpoint = {"AWS_ENDPOINT_URL": values.storage.endpoint} if values.storage.endpoint else {}
    return {"AWS_REGION": values.storage.region, **endpoint, "BIOVFM_METRICS_ADDRESS": "0.0.0.0"}  # noqa: S104 - in a pod


def _prefixes(values: Values) -> dict[str, str]:
    """Where in the bucket the dataset and the runs lie: what the roles reach."""
    bucket = f"s3://{values.storage.bucket}/"
    dataset, out = values.storage.dataset, values.pretrain.out
    run = PurePosixPath(out.removeprefix(bucket)) if out.startswith(bucket) else PurePosixPath("runs/any")
    return {
        "prefix.dataset": dataset.removeprefix(bucket).strip("/") if dataset.startswith(bucket) else "data",
        "prefix.runs": str(run.parent if run.parent.name else run),
    }


def _submissions(values: Values) -> Iterator[str]:
    """One `sbatch` line for each job, with the options that come before the script."""
    slurm, ingest, pretrain = values.slurm, values.ingest, values.pretrain
    account = f" --account={slurm.account}" if slurm.account else ""

    def common(partition: str, time: str) -> str:
        return f"sbatch --partition={partition} --time={time}{account}"

    for source in ingest.sources:
        yield (
            f"{common(slurm.partition, slurm.time)} --array=0-{ingest.tasks - 1} --cpus-per-task={ingest.cpus} "
            f"--job-name=ingest-{source.source} ingest.sbatch {source.source} {source.raw} {values.storage.dataset}"
        )
    yield (
        f"{common(slurm.gpu_partition, slurm.pretrain_time)} --nodes={pretrain.nodes} "
        f"--gpus-per-node={pretrain.gpus} --ntasks-per-node={pretrain.gpus} "
        f"--cpus-per-task={max(pretrain.cpus // pretrain.gpus, 1)} pretrain.sbatch {pretrain.data} "
        f"--recipe {pretrain.recipe} --out {pretrain.out}"
    )
    if values.probe.checkpoints:
        last, names = len(values.probe.checkpoints) - 1, " ".join(values.probe.checkpoints)
        yield (
            f"{common(slurm.gpu_partition, slurm.time)} --array=0-{last} --gpus-per-node=1 "
            f"probe.sbatch {values.probe.tasks} {names}"
        )
    if values.probe.grid:
        yield f"{common(slurm.gpu_partition, slurm.time)} --gpus-per-node=1 sweep.sbatch {values.probe.grid} study"
