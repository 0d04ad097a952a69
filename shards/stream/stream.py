"""The stream: plan → read → decode → batch, one process a rank, native threads, bounded by batches.

A scheduler thread walks the order and hands chunks of samples to worker threads; a worker reads the compressed images,
checks them and decodes them straight into their slots of a batch; the consumer takes finished batches in order. At most
`prefetch` batches are under way, so memory is bounded. Nothing is forked, no shared memory is named, no lock file is
left: a killed process leaves nothing behind.

What it is not: it does not augment (beyond crop and flip) and it does not know about training.
"""

from __future__ import annotations

import atexit
import logging
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NoReturn, Self

import numpy as np
from numpy.typing import NDArray

from shards.dataset.dataset import Dataset
from shards.dataset.withdrawals import naming_withdrawals, purged_from_under
from shards.decode import Crops, Decoder, open_decoder
from shards.decode.base import Blob
from shards.errors import BiovfmError, ConfigError, SampleIndexError, ShardError, StoreError
from shards.read.locations import Locations
from shards.read.remote import open_reader
from shards.stream.batch import Batch
from shards.stream.buffers import BatchBuffers, Lender, Views
from shards.stream.columns import PlanColumns, check_columns, open_columns
from shards.stream.cores import usable_cores
from shards.stream.digests import Digests
from shards.stream.mixing import MixedOrder, Mixture
from shards.stream.order import EpochOrder, Last, Order, OrderSettings, default_lanes, rank_slots
from shards.stream.plan import Plan, plan_of
from shards.stream.position import check_position, position
from shards.stream.stats import BadSample, StreamStats
from shards.stream.worker import Chunk, ChunkWorker, OnBad

CHUNK_IMAGES = 32
"""Images that a worker decodes in one call."""
RAW_CHUNK_IMAGES = 128
"""Likewise where nothing is decoded: the work is small, handing it over is what costs."""
MAX_LOOKAHEAD_SAMPLES = 1 << 15


_Ahead = tuple[int, int, Order, Locations]
"""Epoch, global batch, order and locations of a batch that is to come."""


@dataclass(slots=True, kw_only=True)
class _Pending:
    """A batch under way."""

    epoch: int
    index: int
    views: Views
    seeds: NDArray[np.uint64]
    chunks: list[Future[Chunk]]


class Stream:
    """Batches of a dataset or a lock, epoch after epoch.

    Iterating goes on from the current position, for ever or to the end of `num_epochs`. Leaving the loop, an exception
    in it and `close` all stop the threads. An array of a batch is used again only when nobody holds it any more.

    Args:
        url: A dataset (its newest version) or a lock file.
        dataset: Where the lock's dataset lies now; where the lock says, without it.
        accept_packing: Whether the locked samples will do where they are packed into other shards, so that an epoch
            comes in another order.
        crops: What to cut from each image; empty gives the compressed images.
        global_batch: Samples of a batch over all ranks.
        seed: Seed of order, crops and flips.
        rank: This rank.
        world_size: Ranks; must divide `global_batch`.
        epoch: Epoch to start in.
        batch: Global batch to start at.
        channels: 3, or 1 for gray.
        num_threads: Worker threads; the cores that this process may use where None.
        mode: `fast` decodes at a reduced size where that is enough; `exact` decodes in full.
        last: What becomes of the samples that fill no batch.
        on_bad: `substitute` replaces an unreadable sample by another one, the same on any topology; `raise` stops.
        num_epochs: A loop over the stream ends after so many epochs (counted from epoch 0), and the next loop goes on
            with the next ones; for ever where None.
        prefetch: Batches under way, at least 1.
        mixture: Weights by modality or source; the samples as they are where None.
        cache: Folder for blocks of remote shards, kept for the next run; in memory where None.
        cache_bytes: Budget of the cache; 1 GiB in memory or 64 GiB on disk where None.
        decoder: Name of the decoder; `auto` takes the fastest. `device` leaves JPEGs to a device: the stream judges
            them, replaces bad ones and lends the rest to `train.DeviceStream`, which decodes.
        columns: Columns of the user's own to have in the batch (`biovfm columns list`).
        columns_version: Their version; without it the one that the lock pins where it has them, else the newest.

    Attributes:
        crops: What is cut from each image.
        defers: Whether batches hold images that a device is to decode.

    Raises:
        BiovfmError: The dataset, the lock or an argument is wrong.
    """

    def __init__(
        self,
        url: str | Path,
        *,
        dataset: str | Path | None = None,
        accept_packing: bool = False,
        crops: Sequence[Crops] = (),
        global_batch: int = 256,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        epoch: int = 0,
        batch: int = 0,
        channels: Literal[1, 3] = 3,
        num_threads: int | None = None,
        mode: Literal["fast", "exact"] = "fast",
        last: Last = "drop",
        on_bad: OnBad = "substitute",
        num_epochs: int | None = None,
        prefetch: int = 3,
        mixture: Mixture | None = None,
        cache: Path | None = None,
        cache_bytes: int | None = None,
        decoder: Literal["auto", "native", "library", "device"] = "auto",
        columns: Sequence[str] = (),
        columns_version: int | None = None,
    ) -> None:
        if prefetch < 1:
            raise ConfigError(f"prefetch={prefetch}: at least one batch is under way", hint="use prefetch=1 or more")
        self.dataset, self.plan = self._open(
            url, dataset=None if dataset is None else str(dataset), accept_packing=accept_packing
        )
        if num_epochs is not None and num_epochs < 1:
            raise ConfigError(f"num_epochs={num_epochs}: a loop has at least one epoch", hint="leave it out for ever")
        for note in self.plan.notes:
            _log.warning("%s: %s", url, note)
        self._accept_packing = accept_packing
        self._columns = self._open_columns(columns, columns_version)
        lanes = default_lanes(global_batch, self.plan.digests.most_lanes) if global_batch > 0 else 0
        self.settings = OrderSettings(seed=seed, global_batch=global_batch, num_lanes=lanes, last=last)
        self.rank, self.world_size = rank, world_size
        self.num_epochs = num_epochs
        self._slots = rank_slots(global_batch, rank=rank, world_size=world_size)
        self.crops = self._crops = tuple(crops)
        self.defers = decoder == "device" and bool(crops)
        self._threads = num_threads or usable_cores()
        self._chunk_images = CHUNK_IMAGES if self._crops else RAW_CHUNK_IMAGES
        self._prefetch = prefetch
        self._buffers = BatchBuffers(len(self._slots), self._crops, channels=channels)
        self._reader = open_reader(
            self.dataset.store, places_of=self.plan.places_of, cache=cache, cache_bytes=cache_bytes
        )
        self._stats = StreamStats()
        self._worker = ChunkWorker(
            plan=self.plan,
            reader=self._reader,
            decoder=_decoder(decoder, mode) if self._crops else None,
            crops=self._crops,
            on_bad=on_bad,
            stats=self._stats,
            columns=self._columns,
        )
        self._mixture = mixture
        self._order = self._order_of(epoch)
        self.epoch, self.batch = epoch, 0
        self._go_to(epoch, batch)

    @property
    def batches_per_epoch(self) -> int:
        """Global batches of an epoch, the same for every rank and epoch."""
        return self._order.num_batches

    @property
    def num_samples(self) -> int:
        """Samples of the subset."""
        return self.plan.num_samples

    @property
    def categories(self) -> dict[str, tuple[str, ...]]:
        """Of the own columns that are categories: name → words, at the place that a batch has as number."""
        return {} if self._columns is None else self._columns.categories

    @property
    def digests(self) -> Digests:
        """Which samples, in which order; what ranks, positions and checkpoints compare."""
        columns = "" if self._columns is None else " ".join(f"{k}={v}" for k, v in self._columns.digests.items())
        return replace(self.plan.digests, columns=columns) if columns else self.plan.digests

    @property
    def digest(self) -> str:
        """What the samples are, in one text: the lock's digest, or the dataset's index version."""
        return self.plan.digests.earlier or self.plan.digests.samples

    def state_dict(self) -> dict[str, Any]:
        """The position of the next batch, JSON values alone: epoch, batch, and all that decides what comes there.

        `epoch`, `batch`, `format`, `seed`, `global_batch`, `last`, `mixture`, `samples` and `order` (digests); with own
        columns `columns_version` and `columns` (name → digest).
        """
        state = position(self.settings, self._mixture, self.digests, epoch=self.epoch, batch=self.batch)
        if self._columns is None:
            return state
        return {**state, "columns_version": self._columns.version, "columns": dict(self._columns.digests)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a position; the next loop over the stream starts there.

        Raises:
            ConfigError: There is no such batch, or the position is of another seed, global batch, mixture or `last`.
            SubsetError: It is of other samples, of the same in another order, or of other values of own columns.
        """
        if self._columns is not None:
            check_columns(state, self._columns)
        now = position(self.settings, self._mixture, self.digests, epoch=0, batch=0)
        with naming_withdrawals(self.dataset):
            unpinned = check_position(state, now, self.digests, accept_packing=self._accept_packing)
        if unpinned:
            _log.warning("%s", unpinned)
        self._go_to(int(state["epoch"]), int(state["batch"]))

    def _open(self, url: str | Path, *, dataset: str | None, accept_packing: bool) -> tuple[Dataset, Plan]:
        """The dataset and the plan; a subclass may have them at hand."""
        return plan_of(url, dataset=dataset, accept_packing=accept_packing)

    def _open_columns(self, names: Sequence[str], version: int | None) -> PlanColumns | None:
        if not names or self.plan.chosen is None:
            return None
        return open_columns(
            self.dataset,
            names,
            self.plan.chosen,
            version=self.plan.version,
            pinned=self.plan.columns_version,
            wanted=version,
        )

    def _go_to(self, epoch: int, batch: int) -> None:
        epoch, batch = (epoch + 1, 0) if batch == self.batches_per_epoch else (epoch, batch)
        if epoch < 0 or not 0 <= batch < self.batches_per_epoch:
            raise ConfigError(
                f"there is no batch {batch} in epoch {epoch}: an epoch has {self.batches_per_epoch} batches",
                hint=f"start at 0 … {self.batches_per_epoch - 1}",
            )
        self.epoch, self.batch = epoch, batch

    def __reduce__(self) -> NoReturn:
        raise ConfigError(
            "a stream cannot be pickled or copied: it has threads and open files of this process",
            hint="make a Stream in the process that uses it and give it the other one's state_dict(); "
            "in a DataLoader set num_workers=0, batch_size=None",
        )

    def stats(self) -> StreamStats:
        """A snapshot of the counters since the stream was made."""
        bytes_read, retries = self._reader.bytes_read, self._reader.retries
        return replace(self._stats, bytes_read=bytes_read, retries=retries, bad_samples=[*self._stats.bad_samples])

    def walk_keys(self) -> Iterator[tuple[int, int, list[str]]]:
        """Epoch, batch and sample keys from the current position on, without reading a shard."""
        for epoch, index, order in self._walk():
            locations = self._worker.locations(order, index, rank=self.rank, world_size=self.world_size)
            yield epoch, index, locations.keys.tolist()

    def __iter__(self) -> Iterator[Batch]:
        if self.defers:
            raise ConfigError(
                "a stream with decoder='device' leaves images to a device", hint="iterate train.DeviceStream(stream)"
            )
        return self._loop(self._buffers.take)

    def lend(self, take: Lender) -> Iterator[Batch]:
        """Batches as by iterating, decoded into arrays of the caller.

        Args:
            take: Called, in another thread, with the shape of each group's array before a batch is begun. The caller
                decides when an array may be lent again; nothing is assumed from references to it.
        """
        return self._loop(take)

    def _loop(self, take: Lender) -> Iterator[Batch]:
        pending: queue.Queue[_Pending | BaseException | None] = queue.Queue(maxsize=self._prefetch)
        stop = threading.Event()
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="biovfm-decode")
        scheduler = threading.Thread(
            target=self._schedule, args=(pool, pending, stop, take), name="biovfm-schedule", daemon=True
        )
        _open_loops[scheduler] = stop
        scheduler.start()
        left = time.perf_counter()
        try:
            while True:
                came = time.perf_counter()
                item = pending.get()
                if item is None:
                    return
                if isinstance(item, BaseException):
                    raise item
                batch = self._finish(item)
                now = time.perf_counter()
                self._stats.consumed(len(batch.keys), busy=came - left, waited=now - came)
                left = now
                yield batch
        except (StoreError, ShardError, SampleIndexError, OSError) as error:
            purged = purged_from_under(self.dataset, self.plan.shards)
            if purged is None:
                raise
            raise purged from error
        finally:
            if not sys.is_finalizing():  # else `_stop_open_loops` has been here
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                while not pending.empty():
                    pending.get_nowait()
                scheduler.join()
                pool.shutdown(wait=True)
                _open_loops.pop(scheduler, None)

    def _order_of(self, epoch: int) -> Order:
        if self._mixture is None:
            return EpochOrder(self.plan.counts, self.settings, epoch)
        groups = self.plan.modalities if self._mixture.by == "modality" else self.plan.sources
        return MixedOrder(self.plan.counts, groups, self.settings, self._mixture, epoch)

    def _walk(self) -> Iterator[tuple[int, int, Order]]:
        epoch, index = self.epoch, self.batch
        end = None if self.num_epochs is None else (epoch // self.num_epochs + 1) * self.num_epochs
        while end is None or epoch < end:
            order = self._order_of(epoch)
            for number in range(index, order.num_batches):
                yield epoch, number, order
            epoch, index = epoch + 1, 0

    def _schedule(
        self,
        pool: ThreadPoolExecutor,
        pending: queue.Queue[_Pending | BaseException | None],
        stop: threading.Event,
        take: Lender,
    ) -> None:
        last: BaseException | None = None
        try:
            for work in self._look_ahead(lambda: not pending.full()):
                item = self._submit(pool, work, take(self._buffers.shapes))
                started = time.perf_counter()
                if not _put(pending, item, stop):
                    return
                self._stats.blocked_seconds += time.perf_counter() - started
        except BiovfmError as error:
            last = error
        except RuntimeError as error:  # the pool was shut down under us: the consumer has left
            if stop.is_set():
                return
            last = error
        except Exception as error:  # noqa: BLE001 - it crosses a thread: the consumer must see whatever it is
            last = error
        _put(pending, last, stop)

    def _look_ahead(self, is_wanted: Callable[[], bool]) -> Iterator[_Ahead]:
        """The batches, with what lies `lookahead_bytes` and more ahead of each already being fetched.

        Where an epoch ends its windows close and leave room, into which those of the next one open. A batch that is
        wanted is not kept waiting until all that has been announced.
        """
        ahead: deque[_Ahead] = deque()
        ahead_bytes = 0
        fetching = self._reader.ahead
        begun = False
        for epoch, index, order in self._walk():
            locations = self._worker.locations(order, index, rank=self.rank, world_size=self.world_size)
            if fetching is not None and not begun:
                begun = True
                lanes = max(self.settings.num_lanes // self.world_size, 1)
                fetching.reserve(lanes, self.settings.window, locations)
            if fetching is not None:
                fetching.prefetch(locations)
            ahead.append((epoch, index, order, locations))
            ahead_bytes += _num_bytes(locations)
            while ahead and (is_wanted() or not self._may_look_further(ahead_bytes, len(ahead) * len(locations))):
                ahead_bytes -= _num_bytes(ahead[0][3])
                yield ahead.popleft()
        yield from ahead

    def _may_look_further(self, ahead_bytes: int, ahead_samples: int) -> bool:
        fetching = self._reader.ahead
        if fetching is None or ahead_samples > MAX_LOOKAHEAD_SAMPLES:
            return False
        return ahead_bytes <= fetching.lookahead_bytes or fetching.has_room()

    def _submit(self, pool: ThreadPoolExecutor, work: _Ahead, views: Views) -> _Pending:
        epoch, index, order, locations = work
        seeds = order.seeds(index, rank=self.rank, world_size=self.world_size)
        chunks = [
            pool.submit(
                self._worker.run,
                order,
                index,
                first_slot=self._slots.start + start,
                locations=locations[start : start + self._chunk_images],
                seeds=seeds[start : start + self._chunk_images],
                out=tuple(view[start : start + self._chunk_images] for view in views),
            )
            for start in range(0, len(locations), self._chunk_images)
        ]
        return _Pending(epoch=epoch, index=index, views=views, seeds=seeds, chunks=chunks)

    def _finish(self, item: _Pending) -> Batch:
        keys: list[str] = []
        blobs: list[Blob] = []
        substituted: list[int] = []
        positions: list[NDArray[np.int64]] = []
        for number, future in enumerate(item.chunks):
            chunk = future.result()
            keys += chunk.keys
            blobs += chunk.blobs
            substituted += [number * self._chunk_images + slot for slot in chunk.substituted]
            positions.append(chunk.positions)
        self.epoch, self.batch = item.epoch, item.index
        self._go_to(item.epoch, item.index + 1)
        return Batch(
            views=item.views,
            blobs=() if self._crops and not self.defers else tuple(blobs),
            keys=tuple(keys),
            seeds=item.seeds,
            epoch=item.epoch,
            index=item.index,
            substituted=tuple(substituted),
            columns={} if self._columns is None else self._columns.take(np.concatenate(positions)),
        )

    def close(self) -> None:
        """Let go of mapped shards. Loops over the stream clean up after themselves."""
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _decoder(name: Literal["auto", "native", "library", "device"], mode: Literal["fast", "exact"]) -> Decoder:
    if name != "device":
        return open_decoder(name, mode=mode)
    from shards.decode.device import DeferringDecoder

    return DeferringDecoder(open_decoder("auto", "exact"))  # the pixels that a device gives


_log = logging.getLogger(__name__)
_open_loops: dict[threading.Thread, threading.Event] = {}


@atexit.register
def _stop_open_loops() -> None:
    """Stop the threads of loops that the program left open, while the interpreter is still whole."""
    for scheduler, stop in list(_open_loops.items()):
        stop.set()
        scheduler.join(timeout=10)


def _num_bytes(locations: Locations) -> int:
    return int(locations.lengths.sum())


def _put(
    pending: queue.Queue[_Pending | BaseException | None],
    item: _Pending | BaseException | None,
    stop: threading.Event,
) -> bool:
    while not stop.is_set():
        try:
            pending.put(item, timeout=0.1)
        except queue.Full:
            continue
        return True
    return False


__all__ = ["BadSample", "Batch", "Plan", "Stream", "StreamStats"]
