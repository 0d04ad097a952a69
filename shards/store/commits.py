"""One commit to a Delta table, made exactly once however often the network or another writer gets in the way."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

_PAUSE_SECONDS = 0.2
_MAX_PAUSE_SECONDS = 5.0
_jitter = random.Random()  # noqa: S311 - spreads writers, protects nothing


def commit_once(write: Callable[[], None], is_written: Callable[[], bool], *, attempts: int = 8) -> None:
    """Commit unless it is committed already.

    deltalake rebases a commit that lost a race by itself. Two cases it reports as failures, and here they are settled:
    the reply to our own commit was lost, and the repeated request found "another" writer's version in its place; and
    two writers made the table at the same moment, so that its protocol seems to have changed.

    Args:
        write: Makes the commit; it must carry an application transaction, by which `is_written` knows it again.
        is_written: Whether the commit is in the table.
        attempts: After so many failures the last one is raised.

    Raises:
        CommitFailedError: deltalake's, where every attempt lost its race.
    """
    from deltalake.exceptions import CommitFailedError

    for attempt in range(attempts):
        if is_written():
            return
        try:
            write()
        except CommitFailedError:
            if attempt + 1 == attempts and not is_written():
                raise
            time.sleep(min(_PAUSE_SECONDS * 2**attempt, _MAX_PAUSE_SECONDS) * _jitter.uniform(0.5, 1.0))
        else:
            return
