"""Our stream, as a user calls it.

Torch is imported first, as in any training; so are the libraries that the stream imports when it is made, since imports
are counted for nobody.
"""

import sys
from collections.abc import Iterator

import deltalake  # noqa: F401 - see above
import duckdb  # noqa: F401
import pyarrow.dataset  # noqa: F401
import torch  # noqa: F401

from infra.bench.peers.loaders.harness import WORKERS, Job, main
from shards.decode import Crops
from shards.stream.stream import Stream

if "library" in sys.argv:
    import shards.decode.library  # noqa: F401

CROPS = {
    "A": (Crops(size_px=224),),
    "B": (Crops(size_px=224, kind="center"),),
    "C": (),
    "M": (Crops(num=2, size_px=224, scale=(0.32, 1.0)), Crops(num=8, size_px=96, scale=(0.05, 0.32))),
}


def batches(job: Job) -> Iterator[int]:
    """Variants: fast, exact, and library, which leaves the extension alone."""
    stream = Stream(
        str(job.data),
        crops=CROPS[job.workload],
        global_batch=job.batch,
        num_threads=WORKERS,
        mode="exact" if job.variant == "exact" else "fast",
        decoder="library" if job.variant == "library" else "native",
    )
    for batch in stream:
        yield len(batch.keys)


if __name__ == "__main__":
    main(batches)
