"""Subsets: the lock that pins one, its copy in canonical form, its data list."""

from typing import TYPE_CHECKING

from shards import lazily

if TYPE_CHECKING:
    from shards.subset.canonical import materialize
    from shards.subset.finding import verify
    from shards.subset.lock import Lock, Selection, create
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "Lock": "shards.subset.lock",
            "Selection": "shards.subset.lock",
            "create": "shards.subset.lock",
            "materialize": "shards.subset.canonical",
            "verify": "shards.subset.finding",
        },
    )

__all__ = ["Lock", "Selection", "create", "materialize", "verify"]
