"""From raw sources to deduplicated, modality-tagged shards."""

from typing import TYPE_CHECKING

from shards import lazily

if TYPE_CHECKING:
    from ingest.job.run import run_job
    from ingest.source.spec import load_spec
else:
    __getattr__, __dir__ = lazily(__name__, {"load_spec": "ingest.source.spec", "run_job": "ingest.job.run"})

__all__ = ["load_spec", "run_job"]
