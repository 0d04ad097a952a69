"""`biovfm deploy`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from infra.console import answer, emit

app = App(name="deploy", help="Write files for containers, Kubernetes, SLURM and Terraform.")


@app.command
def render(values: Path, /, *, out: Path, json_: Annotated[bool, Parameter(name="--json")] = False) -> None:
    """Render the files of every platform from one values file; nothing is built, submitted or applied.

    Example: `biovfm deploy render values.yaml --out deploy`

    `biovfm deploy values` prints a values file to begin with.

    Parameters
    ----------
    values
        YAML file of values; a key that is left out has its default.
    out
        Folder to write; the files of an earlier rendering are replaced, or go.
    """
    from infra.commands._deploy_check import check
    from infra.deploy import render as rendering
    from infra.deploy.values import Values
    from shards.errors import ConfigError
    from shards.settings import load_yaml, parse

    if "://" in str(out) or ":/" in str(out) or out == Path():
        raise ConfigError(f"--out {str(out)!r} is no folder of this machine", hint="give one, such as --out deploy")
    checked = parse(Values, load_yaml(values), where=str(values))
    check(checked, where=str(values))
    written = rendering.render(checked, out)
    if json_:
        emit({"out": str(out), "files": [str(path) for path in written]})
    else:
        answer("\n".join(str(out / path) for path in written))


@app.command
def values() -> None:
    """Print a values file to begin with.

    Example: `biovfm deploy values > values.yaml`
    """
    import infra.deploy

    text = (Path(infra.deploy.__file__).parent / "values.yaml").read_text(encoding="utf-8")
    answer(text.rstrip("\n"))
