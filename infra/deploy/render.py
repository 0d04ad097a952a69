"""Renders the templates: `@{section.key}` is a value, everything else stays as it is."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from string import Template
from typing import Any

from infra.deploy.values import Values
from shards.errors import ConfigError
from shards.files import write_text

__all__ = ["render"]

_HERE = Path(__file__).parent
_TEMPLATES = _HERE / "templates"
_PER_SOURCE = {"job": "kubernetes/ingest-job.yaml", "ray": "kubernetes/ingest-rayjob.yaml"}
_LIST = ".rendered"
"""The files of a rendering, one a line, so that the next one can remove those that it does not make."""
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
    """Write the files of every platform; those of an earlier rendering are replaced, or go.

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
    before = _rendered_before(out)
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
    for path in before - set(written):
        (out / path).unlink(missing_ok=True)
    write_text(out / _LIST, "".join(f"{path.as_posix()}\n" for path in sorted(written)))
    return sorted(written)


def _rendered_before(out: Path) -> set[Path]:
    """The files that an earlier rendering has listed."""
    try:
        paths = [Path(line) for line in (out / _LIST).read_text(encoding="utf-8").splitlines()]
    except OSError:
        return set()
    return {path for path in paths if not path.is_absolute() and ".." not in path.parts}


def _files(values: Values) -> Iterator[tuple[str, str]]:
    """Name and text of each rendered file."""
    facts = _flat(values.model_dump())
    facts["release"] = metadata.version("biovfm")
    manifests = ["base.yaml", "pretrain-jobset.yaml", "serve.yaml"]
    template = _PER_SOURCE[values.ingest.engine]
    for source in values.ingest.sources:
        name = f"ingest-{source.source}.yaml"
        manifests.append(name)
        of_source = {**_flat({"source": source.model_dump()}), **_options("source", source.options, indent=12)}
        yield f"kubernetes/{name}", _fill(template, {**facts, **of_source})
    facts["kubernetes.resources"] = "\n".join(f"  - {name}" for name in manifests)
    facts["kubernetes.settings"] = "\n".join(f"      - {name}={value}" for name, value in _settings(values).items())
    for name, role in values.kubernetes.roles.model_dump().items():
        facts[f"annotations.{name}"] = f'{{eks.amazonaws.com/role-arn: "{role}"}}' if role else "{}"
    facts["cache.gib"] = f"{0.8 * _mib(values.kubernetes.cache) / 1024:.1f}"  # compiled kernels lie beside the blocks
    facts["pretrain.ports"] = "\n".join(_metrics_ports(values.pretrain.gpus))
    facts |= {**_reach(values), **_options("pretrain", values.pretrain.options, indent=20)}
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


def _metrics_ports(num: int) -> Iterator[str]:
    """The ports on which the processes of a node, one a GPU, answer Prometheus."""
    for rank in range(num):
        name = f"metrics-{rank}" if rank else "metrics"
        yield f"                    - {{name: {name}, containerPort: {9400 + rank}}}"


def _options(section: str, options: Sequence[str], *, indent: int) -> dict[str, str]:
    """Options as they stand in a list of YAML, and in a line of words."""
    return {
        f"{section}.options.list": "".join(f'\n{" " * indent}- "{option}"' for option in options),
        f"{section}.options.words": "".join(f" {option}" for option in options),
    }


def _reach(values: Values) -> dict[str, str]:
    """What the three roles read and write: folders as `bucket/path`, in lists of HCL."""
    dataset, run = values.storage.dataset, values.pretrain.out
    runs = run.rpartition("/")[0] if run.count("/") > 3 else run  # its neighbours too, and never the whole bucket
    raw = [source.raw.rstrip("/") for source in values.ingest.sources]
    reach = {
        "ingest.read": [dataset, *raw],
        "ingest.write": [dataset],
        "training.read": [dataset, values.pretrain.data, runs],
        "training.write": [runs],
        "pages.read": [dataset],
    }
    folders = {name: sorted({_folder(url) for url in urls if url.startswith("s3://")}) for name, urls in reach.items()}
    bucket = f"{values.storage.bucket}/"
    prefix = dataset.removeprefix(f"s3://{bucket}") if dataset.startswith(f"s3://{bucket}") else "data"
    lists = {f"reach.{name}": json.dumps(found) for name, found in folders.items()}
    return {**lists, "prefix.dataset": prefix}


def _folder(url: str) -> str:
    """`bucket/path` of a folder; a whole bucket is all that is in it."""
    path = url.removeprefix("s3://")
    return path if "/" in path else f"{path}/*"


def _submissions(values: Values) -> Iterator[str]:
    """One `sbatch` line for each job, with the options that come before the script."""
    slurm, ingest, pretrain = values.slurm, values.ingest, values.pretrain
    account = f" --account={slurm.account}" if slurm.account else ""

    def common(partition: str, time: str) -> str:
        return f"sbatch --parsable --partition={partition} --time={time}{account}"

    for number, source in enumerate(ingest.sources):
        words = "".join(f" {option}" for option in source.options)
        yield (
            f"ingest_{number}=$({common(slurm.partition, slurm.time)} --array=0-{ingest.tasks - 1} "
            f"--cpus-per-task={ingest.cpus} {_memory(ingest.memory, ingest.cpus)} --job-name=ingest-{source.source} "
            f'"$here"/ingest.sbatch {source.source} {source.raw} {values.storage.dataset}{words})'
        )
    ids = ":".join(f"$ingest_{number}" for number in range(len(ingest.sources)))
    chosen = "".join(f" {option}" for option in pretrain.options)
    share = max(pretrain.cpus // pretrain.gpus, 1)
    yield (
        f"pretrain=$({common(slurm.gpu_partition, slurm.pretrain_time)} {_after(ids)}--nodes={pretrain.nodes} "
        f"--gpus-per-node={pretrain.gpus} --ntasks-per-node={pretrain.gpus} "
        f"--cpus-per-task={share} {_memory(pretrain.memory, share * pretrain.gpus)} "
        f'"$here"/pretrain.sbatch {pretrain.data} --recipe {pretrain.recipe} --out {pretrain.out}{chosen})'
    )
    if values.probe.checkpoints:
        last, names = len(values.probe.checkpoints) - 1, " ".join(values.probe.checkpoints)
        yield (
            f"{common(slurm.gpu_partition, slurm.time)} {_after('$pretrain')}--array=0-{last} --gpus-per-node=1 "
            f'"$here"/probe.sbatch {values.probe.tasks} {names}'
        )
    if values.probe.grid:  # it only submits; the grid says where its runs go
        yield (f'{common(slurm.partition, slurm.time)} {_after(ids)}"$here"/sweep.sbatch {values.probe.grid} study')


def _after(ids: str) -> str:
    """The option that lets a job wait until others have ended well."""
    return f'"--dependency=afterok:{ids}" --kill-on-invalid-dep=yes ' if ids else ""


def _memory(size: str, cpus: int) -> str:
    """SLURM's option for a task's memory, by its processors, as the scripts give it."""
    return f"--mem-per-cpu={max(_mib(size) // cpus, 1)}M"


def _mib(size: str) -> int:
    return int(size[:-2]) * {"Mi": 1, "Gi": 1 << 10, "Ti": 1 << 20}[size[-2:]]
