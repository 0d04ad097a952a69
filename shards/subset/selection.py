"""What a subset is asked to hold: tags, a predicate, a share of each group; and the SQL that says so.

Sampling is by hash: a sample is in when `md5("<seed>:<key>")` is at most the threshold of its group. So the choice
depends on the key alone, and a larger fraction contains the smaller one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from shards.dataset.query import quote
from shards.schema import MODALITIES

GroupColumn = Literal["modality", "source", "anatomy", "licence"]


class Selection(BaseModel):
    """Which samples of a dataset; empty means all.

    Attributes:
        modality: Modality tags to keep.
        source: Source ids to keep.
        anatomy: Body parts to keep.
        licence: Licences to keep.
        where: A DuckDB predicate over the columns of the index and the user's own, e.g. `width >= 256 AND age > 60`.
        fraction: Share of each group to keep.
        count: Samples of each group to keep (all of a smaller group).
        per: What a group is, for `fraction` and `count`; empty takes the selection as one group.
        seed: Seed of the sampling.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    modality: tuple[str, ...] = ()
    source: tuple[str, ...] = ()
    anatomy: tuple[str, ...] = ()
    licence: tuple[str, ...] = ()
    where: str | None = None
    fraction: float | None = Field(default=None, gt=0, le=1)
    count: int | None = Field(default=None, gt=0)
    per: tuple[GroupColumn, ...] = ("modality",)
    seed: int = 0

    @field_validator("modality")
    @classmethod
    def _known_modalities(cls, tags: tuple[str, ...]) -> tuple[str, ...]:
        canonical = {tag.lower(): tag for tag in MODALITIES}
        unknown = [tag for tag in tags if tag.lower() not in canonical]
        if unknown:
            raise ValueError(f"no modality {unknown[0]!r}; there are {', '.join(MODALITIES)}")
        return tuple(canonical[tag.lower()] for tag in tags)

    @model_validator(mode="after")
    def _one_amount(self) -> Self:
        if self.fraction is not None and self.count is not None:
            raise ValueError("give fraction or count, not both")
        return self

    @property
    def samples_by_hash(self) -> bool:
        """Whether only a part of each group is kept."""
        return self.count is not None or (self.fraction is not None and self.fraction < 1)

    def tag_predicate(self) -> str:
        """The SQL predicate of the tags and of `where`, without the sampling."""
        parts = [
            f"{column} IN ({', '.join(map(quote, values))})"
            for column in ("modality", "source", "anatomy", "licence")
            if (values := getattr(self, column))
        ]
        if self.where:
            parts.append(f"(\n{self.where}\n)")  # on lines of its own: it may end with a comment
        return " AND ".join(parts) or "TRUE"

    def group_expression(self) -> str:
        """The SQL expression of a sample's group."""
        return f"concat_ws('|', {', '.join(self.per)})" if self.per else "''"

    def hash_expression(self) -> str:
        """The SQL expression that sampling compares with the threshold."""
        return f"md5('{self.seed}:' || key)"

    def describe(self) -> str:
        """The predicate in one line, for messages."""
        return " ".join(self.tag_predicate().split())


def predicate(selection: Selection, thresholds: Mapping[str, str]) -> str:
    """The SQL predicate of a selection with its sampling thresholds (group → largest hash that is in)."""
    if not selection.samples_by_hash:
        return selection.tag_predicate()
    cases = " ".join(f"WHEN {quote(group)} THEN {quote(value)}" for group, value in sorted(thresholds.items()))
    limit = f"CASE {selection.group_expression()} {cases} END" if cases else "''"
    return f"{selection.tag_predicate()} AND {selection.hash_expression()} <= {limit}"
