"""Where the soak's datasets lie: a small disk of their own, or a local S3 server behind a proxy that breaks replies."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from infra import s3_server
from shards.store import join_url, open_store
from tests.faults import FaultProxy

__all__ = ["Place", "disk_place", "store_place"]

_DISK_BYTES = 256 << 20
_IMPATIENT = {
    "BIOVFM_STORE_BUDGET_SECONDS": "6",
    "BIOVFM_STORE_READ_SECONDS": "2",
    "BIOVFM_STORE_CONNECT_SECONDS": "1",
    "BIOVFM_STORE_REQUEST_SECONDS": "20",
    "BIOVFM_STORE_BACKOFF_SECONDS": "0.05",
    "BIOVFM_STORE_BACKOFF_MAX_SECONDS": "1",
}


@dataclass(slots=True, kw_only=True)
class Place:
    """Where one dataset after the other lies.

    Attributes:
        name: `disk` or `S3`.
        root: URL of a folder for the datasets and raw files.
        work: Local folder for runs, locks and references.
        environment: Of the commands that are disturbed.
        disk: Mount point of the small disk; None where the place is not one.
        proxy: Between the commands and the server; None on a disk.
        server: Likewise.
        generation: Number of the present dataset.
        files: How many raw files each source has.
    """

    name: str
    root: str
    work: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    disk: Path | None = None
    proxy: FaultProxy | None = None
    server: s3_server.Server | None = None
    generation: int = 0
    files: dict[str, int] = field(default_factory=dict)

    @property
    def base(self) -> str:
        """URL of the folder of the present dataset and its raw files."""
        return join_url(self.root, f"g{self.generation:03d}")

    @property
    def dataset(self) -> str:
        """URL of the present dataset."""
        return join_url(self.base, "dataset")

    @property
    def folder(self) -> Path:
        """Local folder of what belongs to the present dataset; on the small disk where there is one."""
        folder = (self.disk or self.work) / f"local{self.generation:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @property
    def reference(self) -> str:
        """The dataset that the undisturbed commands make."""
        return str(self.references / "dataset")

    @property
    def references(self) -> Path:
        """Local folder of what the undisturbed commands make."""
        folder = self.work / f"reference{self.generation:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def raw(self, source: str) -> str:
        """URL of the raw files of a source."""
        base = self.base if self.server else str(self.references)
        return join_url(base, f"raw-{source}")

    def add_raw(self, source: str, files: Mapping[str, bytes]) -> None:
        """Add raw files to a source."""
        store = open_store(self.raw(source))
        for name, data in files.items():
            store.put_if_absent(name, data)


@contextlib.contextmanager
def disk_place(work: Path) -> Iterator[Place]:
    """A disk of 256 MiB in memory where the system lets us mount one; else a plain folder, which is never full."""
    disk = work / "disk"
    disk.mkdir(parents=True)
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "biovfm-soak", str(disk)],
            check=False,
            capture_output=True,
        ).returncode
    )
    try:
        yield Place(name="disk", root=str(disk), work=work / "disk-work", disk=disk if mounted else None)
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(disk)], check=False, capture_output=True)


@contextlib.contextmanager
def store_place(work: Path) -> Iterator[Place]:
    """A bucket of a local S3 server; this process speaks to it directly, the disturbed commands through the proxy."""
    with s3_server.start(work / "s3") as server, FaultProxy(server.endpoint) as proxy:
        before = dict(os.environ)
        os.environ.update({**server.env, **_IMPATIENT})
        try:
            yield Place(
                name="S3",
                root=server.make_bucket("soak"),
                work=work / "s3-work",
                environment={**server.env, **_IMPATIENT, "AWS_ENDPOINT_URL": proxy.endpoint},
                proxy=proxy,
                server=server,
            )
        finally:
            os.environ.clear()
            os.environ.update(before)
