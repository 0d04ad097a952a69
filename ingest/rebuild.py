"""Makes the samples of a lock again from the raw data alone, for sources that may not be redistributed.

The lock carries the sources' entries, the settings of their jobs, the encoding policy and the pipeline's version. The
raw folders are ingested into a scratch dataset in the order of the original jobs; what the lock pins is looked for in
it by its digests, and copied into the target in canonical form. So whoever has the same raw data gets the same bytes
as `biovfm subset materialize` makes of the original dataset; or each source that differs is named with what it lacks.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr

from ingest.job.identity import PIPELINE_VERSION
from ingest.job.report import JobReport
from ingest.job.run import run_job
from ingest.job.secret_check import require_secret
from ingest.privacy.tombstones import has_tombstones, tombstones_of
from ingest.settings import IngestSettings
from ingest.source.spec import SourceSpec, load_spec
from shards.dataset.dataset import Dataset
from shards.dataset.withdrawals import withdrawals_of
from shards.errors import BiovfmError, ConfigError, SubsetError
from shards.settings import parse
from shards.subset.canonical import materialize
from shards.subset.finding import differences_of, find, verify
from shards.subset.lock import Lock
from shards.subset.relock import require_nothing_withdrawn

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilt:
    """What was made.

    Attributes:
        dataset: The target.
        reports: Of each source's job.
        notes: Lines that the user should see.
    """

    dataset: Dataset
    reports: tuple[JobReport, ...]
    notes: tuple[str, ...]


def rebuild(
    lock: Lock,
    raw: Mapping[str, str],
    url: str,
    *,
    dataset: str | None = None,
    keys: Path | None = None,
    workers: int = 1,
    secret: SecretStr | None = None,
    scratch: Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> Rebuilt:
    """Make a lock's samples from raw data.

    Args:
        lock: The lock.
        raw: Source id → folder or URL of its raw data.
        url: The target; made where needed.
        dataset: Where the lock's own dataset lies now, so that nothing comes back that was withdrawn from it; where the
            lock says, without it, if it can be reached.
        keys: The lock's list of samples, where it has one; tells missing samples by name.
        workers: Processes of ingest, and threads of the copy; the bytes do not depend on their number.
        secret: Keys group ids and hidden raw paths; neither is in what is made beside the index.
        scratch: Folder for the scratch dataset; the temporary folder without it. It holds all images of the sources.
        progress: Called with a line as each source begins.

    Raises:
        ConfigError: A source's raw data are not given, or the lock is of another version of the pipeline.
        SubsetError: The raw data do not give the pinned samples; says what is missing or differs, per source.
        SourceError: A raw folder does not look as its source says.
        SampleIndexError: There is no dataset at `dataset`.
    """
    specs = _sources(lock, raw)
    _refuse_withdrawn(lock, dataset)
    written = lock.pipeline_version
    if written is not None and written != PIPELINE_VERSION:
        raise ConfigError(
            f"the lock's samples were made by version {written} of the ingest pipeline, this release has "
            f"{PIPELINE_VERSION}",
            hint="install the biovfm release that made the lock",
        )
    with tempfile.TemporaryDirectory(prefix="biovfm-rebuild-", dir=scratch) as folder:
        place = str(Path(folder) / "dataset")
        reports = []
        for source, (spec, settings) in specs.items():
            if progress is not None:
                progress(f"ingesting {source} from {raw[source]}")
            keyed = settings.model_copy(update={"secret": secret or SecretStr("rebuild")})
            reports.append(
                run_job(spec, raw[source], place, workers=workers, settings=keyed, encoding=lock.encoding or None)
            )
        found = _compare(lock, place, keys)
        made = materialize(lock, url, dataset=place, keys=keys, workers=workers, withdrawn=_withdrawn_from(url, secret))
    return Rebuilt(dataset=made, reports=tuple(reports), notes=tuple(found))


def _refuse_withdrawn(lock: Lock, place: str | None) -> None:
    """Bring nothing back that was withdrawn from the lock's own dataset, where that can be reached."""
    try:
        dataset = Dataset.open(place) if place is not None else Dataset.find(lock.dataset)
    except BiovfmError:
        if place is not None:
            raise
        return
    if dataset is None or dataset.id != lock.dataset_id or withdrawals_of(dataset) is None:
        return
    try:
        found = find(lock, dataset)
    except SubsetError:
        if any(one.withdrawn for one in differences_of(lock, dataset)):
            raise
        return
    require_nothing_withdrawn(found)


def _withdrawn_from(url: str, secret: SecretStr | None) -> Callable[[pa.Table], Sequence[bool]] | None:
    """What tells which samples were withdrawn from the target; None where nothing was."""
    target = Dataset.find(url)
    if target is None or not has_tombstones(target):
        return None
    require_secret(target, secret or SecretStr(""))
    tombstones = tombstones_of(target, secret or SecretStr(""))
    return None if tombstones is None else tombstones.of_table


def _sources(lock: Lock, raw: Mapping[str, str]) -> dict[str, tuple[SourceSpec, IngestSettings]]:
    """The sources to ingest, in the order of the original jobs."""
    pinned = {part.source for part in lock.parts}
    if not pinned:
        raise ConfigError(
            "the lock is of an earlier format and does not name its sources",
            hint="make it again with `biovfm subset create`",
        )
    missing = sorted(pinned - set(raw))
    if missing:
        given = " ".join(f"--raw {source}=FOLDER" for source in missing)
        raise ConfigError(f"no raw data given for {', '.join(missing)}", hint=f"add {given}")
    strangers = sorted(set(raw) - pinned - set(lock.sources))
    if strangers:
        raise ConfigError(f"the lock has no source {strangers[0]}", hint=f"its sources are {', '.join(sorted(pinned))}")
    order = [*lock.sources, *sorted(pinned - set(lock.sources))]
    return {source: _entry(lock, source) for source in order if source in raw}


def _entry(lock: Lock, source: str) -> tuple[SourceSpec, IngestSettings]:
    entry = lock.sources.get(source)
    if entry is None:  # a job of an earlier release
        return load_spec(source), IngestSettings()
    where = f"source {source} of the lock"
    return parse(SourceSpec, entry.get("spec", {}), where=where), parse(
        IngestSettings, entry.get("settings", {}), where=where
    )


def _compare(lock: Lock, place: str, keys: Path | None) -> list[str]:
    try:
        return [note for note in verify(lock, place, keys=keys).notes if place not in note]
    except SubsetError as error:
        detail = error.message.partition(" has changed under the lock: ")[2] or error.message
        raise SubsetError(
            f"the raw data do not give the locked samples: {detail}",
            hint="compare the raw files with the data list of the lock's owner (`biovfm subset export`)",
        ) from error
