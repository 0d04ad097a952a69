"""`biovfm secret backup | check | explain`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from infra.console import answer, answer_table, emit, stderr

if TYPE_CHECKING:
    from pydantic import SecretStr

    from shards.dataset.dataset import Dataset

app = App(name="secret", help="Back up, check and explain the secret that group ids hang on.")

Json = Annotated[bool, Parameter(name="--json")]

_SAID = {
    "belongs": "{what} belongs to {url}",
    "wrong": "{what} is not the one that {url} was made with",
    "missing": "{url} was made with a secret, and there is none here",
    "unused": "nothing of {url} hangs on a secret",
    "unknown": "{url} is of an earlier release and keeps no check value: nothing tells whether {what} belongs to it",
}


@app.command
def backup(dataset: str, /, *, out: Path) -> None:
    """Write the secret into a file that only you can read (mode 600), after it was compared with the dataset.

    To bring it back, copy the file to where `biovfm secret explain DATASET` says. Keep it apart from the dataset:
    whoever has both can tell whether a known patient is in it.

    Example: `biovfm secret backup ./data --out /media/safe/biovfm-secret`

    Parameters
    ----------
    dataset
        A dataset that was made with the secret.
    out
        The file to write; it must not be there yet.
    """
    from ingest.job.secret_check import require_secret
    from ingest.privacy.secret import load_secret, write_backup
    from shards.dataset import Dataset
    from shards.errors import ConfigError

    opened, secret = Dataset.open(dataset), load_secret(create=False)
    require_secret(opened, secret)
    if not secret.get_secret_value():
        raise ConfigError("there is no secret here to back up", hint="the first ingest of a private source makes one")
    write_backup(secret, out)
    stderr().print(f"wrote {out}; keep it apart from the dataset", soft_wrap=True)


@app.command
def check(dataset: str, /, *, backup: Path | None = None, json_: Json = False) -> int:
    """Say whether the secret of this machine, or a backup of it, belongs to a dataset; exit 1 where it does not.

    Example: `biovfm secret check ./data --backup /media/safe/biovfm-secret`

    Parameters
    ----------
    dataset
        Folder or URL of the dataset.
    backup
        A file that `biovfm secret backup` wrote; the secret of this machine without it.
    """
    from ingest.job.secret_check import judge_secret
    from ingest.privacy.secret import load_secret, read_backup
    from shards.dataset import Dataset

    opened = Dataset.open(dataset)
    secret = load_secret(create=False) if backup is None else read_backup(backup)
    verdict = judge_secret(opened, secret)
    what = "the secret here" if backup is None else f"the secret in {backup}"
    if json_:
        emit({"dataset": opened.url, "verdict": verdict})
    else:
        answer(_SAID[verdict].format(what=what, url=opened.url))
    return 0 if verdict in ("belongs", "unused") else 1


@app.command
def explain(dataset: str, /, *, json_: Json = False) -> None:
    """Say where the secret lies, whether it belongs to a dataset, and what would be lost with it.

    Example: `biovfm secret explain ./data`

    Parameters
    ----------
    dataset
        Folder or URL of the dataset.
    """
    from ingest.job.secret_check import judge_secret
    from ingest.privacy.secret import load_secret
    from shards.dataset import Dataset

    opened, secret = Dataset.open(dataset), load_secret(create=False)
    verdict, place = judge_secret(opened, secret), _place(secret)
    hanging, marks = _hanging(opened), _num_marks(opened)
    if json_:
        emit({"dataset": opened.url, "place": place, "verdict": verdict, "sources": hanging, "tombstones": marks})
        return
    answer(f"the secret: {place}")
    answer(_SAID[verdict].format(what="it", url=opened.url))
    answer_table("what hangs on it", hanging)
    if marks:
        answer(f"{marks:,} tombstones of withdrawn samples")
    if hanging or marks:
        answer(
            "without it: new images of a patient who is in the dataset get another group id; a withdrawal finds a "
            "patient by pseudonym or key alone, not by the identifier; columns by group or hidden raw path cannot be "
            "joined; files with hidden paths are not known again; and ingest refuses to add to the dataset, since it "
            "could not keep withdrawn images out"
        )
        answer("who has it and the dataset can tell whether a known patient is in it; keep a backup apart from both")


def _place(secret: SecretStr) -> str:
    import os

    from ingest.privacy.secret import VARIABLE, secret_file

    if os.environ.get(VARIABLE):
        return f"the environment variable {VARIABLE}"
    found = "" if secret.get_secret_value() else " (not there)"
    return f"{secret_file()}{found}"


def _hanging(dataset: Dataset) -> list[dict[str, Any]]:
    """Per source whose groups are hashed with the secret: samples, groups, and whether raw paths are hidden."""
    from ingest.job.secret_check import keyed_jobs
    from ingest.privacy.pseudonyms import hides_paths

    keyed = {job.spec.id: hides_paths(job.spec, job.settings) for job in keyed_jobs(dataset)}
    sql = (
        "SELECT source, count(*)::BIGINT AS samples, count(DISTINCT group_id)::BIGINT AS groups FROM samples GROUP BY 1"
    )
    counted = {row["source"]: row for row in dataset.query(sql).to_pylist()}
    return [
        {
            "source": source,
            "samples": counted.get(source, {}).get("samples", 0),
            "groups": counted.get(source, {}).get("groups", 0),
            "raw_paths": "hidden" if hidden else "readable",
        }
        for source, hidden in sorted(keyed.items())
    ]


def _num_marks(dataset: Dataset) -> int:
    return int(dataset.query("SELECT count(*)::BIGINT AS num FROM withdrawn")["num"][0].as_py())
