"""What Arrow may take for granted of a file, by the statistics in the Delta log.

deltalake states for a column that is null in every row of a file that its values are at least null; Arrow concludes
that none is null, and answers `IS NULL` with no row and `IS NOT NULL` with all of them. Here such a column, and one of
floating-point numbers whose bounds a NaN has hidden, has no bounds at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import and_
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds
    from deltalake import DeltaTable


def without_null_bounds(table: DeltaTable, rows: ds.Dataset) -> ds.Dataset:
    """The scan of a table in which no file claims bounds that are null.

    Args:
        table: The table.
        rows: Its scan, as deltalake makes it.
    """
    import pyarrow.dataset as ds

    files = list(rows.get_fragments())
    doubtful = [at for at, file in enumerate(files) if "null[" in str(file.partition_expression)]
    if not doubtful:
        return rows
    facts = _facts(table)
    for at in doubtful:
        file = files[at]
        known = _known(
            ds.get_partition_keys(file.partition_expression), facts.get(file.path.lstrip("/"), {}), rows.schema
        )
        files[at] = rows.format.make_fragment(file.path, rows.filesystem, partition_expression=known)
    return ds.FileSystemDataset(files, rows.schema, rows.format, rows.filesystem)


def _facts(table: DeltaTable) -> dict[str, dict[str, Any]]:
    """Path → what the log says of the file: `min.NAME`, `max.NAME`, `null_count.NAME` and more."""
    import pyarrow as pa

    return {unquote(entry["path"]): entry for entry in pa.table(table.get_add_actions(flatten=True)).to_pylist()}


def _known(partition: Mapping[str, Any], facts: Mapping[str, Any], schema: pa.Schema) -> ds.Expression:
    """The partition's values, and bounds of texts and whole numbers."""
    import pyarrow as pa
    import pyarrow.dataset as ds

    found = [ds.field(name) == value for name, value in partition.items()]
    for field in schema:
        least, greatest = facts.get(f"min.{field.name}"), facts.get(f"max.{field.name}")
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if least is None or greatest is None or not (pa.types.is_string(kind) or pa.types.is_integer(kind)):
            continue
        column = ds.field(field.name)
        within = (column >= least) & (column <= greatest)
        found.append(within if facts.get(f"null_count.{field.name}") == 0 else within | column.is_null())
    return reduce(and_, found, ds.scalar(True))
