"""What a stream gives, as digests: which samples, in which order. Ranks, positions and checkpoints compare them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from shards.errors import SubsetError
from shards.stream.order import MAX_LANES


@dataclass(frozen=True, slots=True, kw_only=True)
class Digests:
    """The digests of a stream's samples; a plain mapping of texts and numbers by `as_dict`.

    Attributes:
        samples: Of the keys and pixel hashes; empty where they were not computed (a large dataset without a lock).
        order: Of the plan: shard names and one bit per index row. Equal orders have equal samples.
        num_samples: Samples.
        most_lanes: Most lanes of an epoch, as the lock says: a part of the order that no digest of the plan holds.
        columns: Of the user's own columns in the batch, name by name; empty without such columns.
        earlier: What earlier releases called these samples: an old lock's digest, or `version:N` of a dataset.
    """

    samples: str
    order: str
    num_samples: int
    most_lanes: int = MAX_LANES
    earlier: str = ""
    columns: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON; without `columns` where there are none."""
        return {name: value for name, value in asdict(self).items() if value or name != "columns"}

    def __str__(self) -> str:
        return f"order {self.order[:23]}, samples {self.samples[:26] or 'not computed'}"


def compare_ranks(found: Sequence[Mapping[str, Any]], *, names: Sequence[str] = ()) -> None:
    """Refuse to begin where ranks see different data.

    Args:
        found: Of each rank, in order: `Digests.as_dict()` and whatever else must be equal (such as `code_version`).
        names: What each rank was given (URLs), for the message.

    Raises:
        SubsetError: Two ranks differ; names both ranks and both digests.
    """
    for rank, other in enumerate(found[1:], 1):
        for key in ("order", "samples", "num_samples", *sorted({*found[0], *other} - {"earlier"})):
            mine, theirs = found[0].get(key), other.get(key)
            if mine != theirs:
                what = f"digest of the {key}" if key in {"order", "samples"} else key.replace("_", " ")
                at = [f" ({name})" for name in names] or [""] * len(found)
                raise SubsetError(
                    f"ranks 0 and {rank} differ in the {what}: {mine}{at[0]} and {theirs}{at[rank]}",
                    hint="give every rank the same lock file, dataset version and release",
                )


def compare_resumed(was: Mapping[str, Any] | str, now: Digests, *, what: str, accept_packing: bool = False) -> str:
    """Whether a position or checkpoint belongs to these samples in this order.

    Args:
        was: What it carries: `Digests.as_dict()`, or the one text of an earlier release.
        now: Of the stream that is to go on.
        what: What carries it, for messages: `the checkpoint at step 100`.
        accept_packing: Whether another packing of the same samples will do.

    Returns:
        A line on what is not pinned, for the user to see; empty where all is.

    Raises:
        SubsetError: Other samples, or the same in another order; names both digests.
    """
    if isinstance(was, str):
        return _compare_earlier(was, now, what)
    order, samples = was.get("order", ""), was.get("samples", "")
    if order == now.order:
        return ""
    if samples and samples == now.samples:
        if accept_packing:
            return f"{what} was made on another packing of the same samples: the order of the epochs is another one"
        raise SubsetError(
            f"{what} has the same samples packed into other shards: digest of the order {order}, here {now.order}",
            hint="go on with the dataset of that run, or materialize the lock and begin anew; "
            "--accept-packing goes on in another order",
        )
    raise SubsetError(
        f"{what} saw other samples: digest {samples or order}, here {now.samples if samples else now.order}",
        hint="give the lock or dataset version of that run",
    )


def _compare_earlier(was: str, now: Digests, what: str) -> str:
    if was not in {now.earlier, now.samples}:
        raise SubsetError(
            f"{what} saw other samples, or names them as an earlier release did: digest {was}, here "
            f"{now.earlier or now.samples}",
            hint="give the lock file or dataset version of that run",
        )
    pins = "the samples" if ":" in was and not was.startswith("version:") else "the dataset's version"
    return f"{what} is of an earlier release: it pins {pins}, not the order"
