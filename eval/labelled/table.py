"""A person's table of labels, as CSV: which images it speaks of, what it says, and what kind of task that is.

One column names the images (`key`, `raw_path` or `group_id`), `split` may say train, val or test, the others are
labels: one column of two values is a binary task, of more values a multi-class one (or an ordinal one, if the person
says so), several columns of zeros and ones are a multi-label task. An empty cell is no label.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np

from eval.medmnist.data import SPLITS
from eval.medmnist.tasks import BINARY, MULTI_CLASS, MULTI_LABEL, ORDINAL, Kind
from eval.scoring.metrics import Labels
from shards.errors import ConfigError

By = Literal["key", "raw_path", "group_id"]
IDS: Final[tuple[By, ...]] = ("key", "raw_path", "group_id")
SPLIT: Final = "split"
_SEPARATORS: Final = (",", ";", "\t")
_MAX_CLASSES: Final = 50
"""More different values in one column are taken for a measurement, not for classes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelTable:
    """The labelled rows of a table.

    Attributes:
        path: Where it was read.
        by: Which column names the images.
        ids: (N,) that column.
        labels: (N, 1) class numbers, or (N, L) zeros and ones.
        kind: One of MedMNIST's four kinds.
        class_names: One name per class, or per label in multi-label tasks.
        splits: (N,) train, val or test; empty where the table does not say.
        num_unlabelled: Rows without a label, which were left out.
    """

    path: Path
    by: By
    ids: Sequence[str]
    labels: Labels
    kind: Kind
    class_names: tuple[str, ...]
    splits: Sequence[str]
    num_unlabelled: int


def read_labels(path: Path, *, columns: Sequence[str] = (), ordinal: bool = False) -> LabelTable:
    """Read a table of labels.

    Args:
        path: CSV with a header; commas, semicolons or tabs, UTF-8 or cp1252.
        columns: The label columns; all that are neither an id nor the split without it.
        ordinal: One column of ordered classes.

    Raises:
        ConfigError: The file cannot be read, or its columns or values are not as this module says.
    """
    rows = _read(path)
    names = list(rows[0])
    by = next((name for name in IDS if name in names), None)
    if by is None:
        raise ConfigError(f"{path} has none of the columns {', '.join(IDS)}", hint="add one that names the images")
    chosen = list(columns) or [name for name in names if name not in (*IDS, SPLIT)]
    if unknown := [name for name in chosen if name not in names]:
        raise ConfigError(f"{path} has no column {', '.join(unknown)}", hint=f"it has {', '.join(names)}")
    if not chosen:
        raise ConfigError(f"{path} has no label column", hint="add one, beside the one that names the images")
    labelled = [row for row in rows if all(row[name] for name in chosen)]
    if not labelled:
        raise ConfigError(f"{path}: no row has a value in {', '.join(chosen)}", hint="choose columns with --label NAME")
    _check_ids(labelled, by, path)
    splits = _splits(labelled, path) if SPLIT in names else []
    make = _several if len(chosen) > 1 else _one
    labels, kind, class_names = make(labelled, chosen, path, ordinal=ordinal)
    return LabelTable(
        path=path,
        by=by,
        ids=[row[by] for row in labelled],
        labels=labels,
        kind=kind,
        class_names=class_names,
        splits=splits,
        num_unlabelled=len(rows) - len(labelled),
    )


def _read(path: Path) -> list[dict[str, str]]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", hint="pass --labels FILE.csv") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252", errors="replace")
    lines = text.splitlines()
    separator = max(_SEPARATORS, key=lines[0].count) if lines else ","
    try:
        found = [
            {
                (name or "").strip(): (value or "").strip()
                for name, value in row.items()
                if isinstance(value, str | None)
            }
            for row in csv.DictReader(lines, delimiter=separator)
        ]
    except csv.Error as error:
        raise ConfigError(f"{path} is no CSV table: {error}", hint="save it as CSV") from error
    if not found:
        raise ConfigError(f"{path} has no rows", hint="give a CSV file with a header and a row per image")
    return found


def _check_ids(rows: Sequence[dict[str, str]], by: By, path: Path) -> None:
    ids = [row[by] for row in rows]
    if not all(ids):
        raise ConfigError(
            f"{path}: {ids.count('')} labelled rows have no {by}", hint="fill the column or drop the rows"
        )
    if doubled := len(ids) - len(set(ids)):
        raise ConfigError(f"{path}: {doubled} rows repeat the {by} of another row", hint="keep one row per image")


def _splits(rows: Sequence[dict[str, str]], path: Path) -> list[str]:
    splits = [row[SPLIT].lower() for row in rows]
    if wrong := sorted(set(splits) - set(SPLITS)):
        raise ConfigError(f"{path}: split is {wrong[0]!r}", hint=f"write {', '.join(SPLITS)}")
    return splits


def _one(
    rows: Sequence[dict[str, str]], columns: Sequence[str], path: Path, *, ordinal: bool
) -> tuple[Labels, Kind, tuple[str, ...]]:
    (column,) = columns
    values = [row[column] for row in rows]
    classes = _ordered(set(values))
    if len(classes) < 2:
        raise ConfigError(f"{path}: {column} is {classes[0]!r} in every row", hint="a task needs two classes")
    if len(classes) > _MAX_CLASSES:
        raise ConfigError(
            f"{path}: {column} has {len(classes)} different values, and a task has at most {_MAX_CLASSES} classes",
            hint="choose another column with --label NAME, or write classes instead of measurements into it",
        )
    kind: Kind = ORDINAL if ordinal else BINARY if len(classes) == 2 else MULTI_CLASS
    return np.array([[classes.index(value)] for value in values]), kind, tuple(classes)


def _several(
    rows: Sequence[dict[str, str]], columns: Sequence[str], path: Path, *, ordinal: bool
) -> tuple[Labels, Kind, tuple[str, ...]]:
    if ordinal:
        raise ConfigError(
            "an ordinal task has one label column", hint=f"choose one of {', '.join(columns)} with --label"
        )
    for column in columns:
        if wrong := sorted({row[column] for row in rows} - {"0", "1", "0.0", "1.0"}):
            raise ConfigError(
                f"{path}: {column} holds {wrong[0]!r}, and several label columns are zeros and ones",
                hint="choose one column with --label NAME",
            )
    return np.array([[int(float(row[name])) for name in columns] for row in rows]), MULTI_LABEL, tuple(columns)


def _ordered(values: set[str]) -> list[str]:
    """Numbers by size, words by the alphabet."""
    try:
        return sorted(values, key=float)
    except ValueError:
        return sorted(values)
