"""`biovfm doctor`."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from importlib import metadata, util
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from infra.console import emit
from shards.errors import ConfigError
from shards.store.doctor import Finding, probe
from shards.stream.cores import usable_cores

_PACKAGES = ("biovfm", "deltalake", "duckdb", "numpy", "obstore", "fsspec", "s3fs", "pyarrow", "pydicom")
_EXTRAS = {
    "train": ("torch", "timm", "medmnist"),
    "opencv": ("cv2",),
    "codecs": ("imagecodecs",),
    "gdcm": ("gdcm",),
    "slides": ("tiffslide", "cv2"),
    "video": ("av",),
    "hdf5": ("h5py",),
    "ray": ("ray",),
    "serve": ("starlette", "uvicorn"),
}
_LIMIT_FILES = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def doctor(
    url: str = "",
    /,
    *,
    device: bool = False,
    bench: bool = False,
    data: Path | None = None,
    images: int | None = None,
    only: list[str] | None = None,
    pack: Path | None = None,
    max_mib: int = 64,
    python: str = "3.12",
    torch: str = "2.11",
    json_: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Say what this machine has and, with a URL, what that store can do; with --device, what its GPU can do.

    With a URL it lists, writes, reads, renames and deletes in a folder `.biovfm-doctor-…` of its own there.

    Example: `biovfm doctor s3://my-bucket/my-dataset` or `biovfm doctor --device --bench`

    Parameters
    ----------
    url
        A dataset's folder, or where one is to be; without it only this machine is looked at.
    device
        Check the accelerator: libraries, decoding, compiled kernels, and that decoding corrupts no memory.
    bench
        With --device, measure too: decode rates, copies, steps fed by the stream; 8 minutes at most.
    data
        With --bench or --pack, a shard (.tar) or a local dataset with the images; drawn ones without it.
    images
        With --bench, at most so many images.
    only
        With --device, only the parts whose name contains this text, such as `mae base`; may be given several times.
    pack
        Write a folder that runs this check on a GPU machine without network: `sh run.sh --bench` there.
    max_mib
        Largest size of that folder.
    python
        Version of Python on that machine.
    torch
        Version of PyTorch on that machine.
    json_
        Print one JSON object.
    """
    if pack is not None:
        from infra.commands.device.pack import pack as write_pack

        sizes = write_pack(pack, data=data, max_mib=max_mib, python=python, torch=torch, say=_progress)
        if json_:
            emit({"folder": str(pack), "mib": sizes})
        else:
            sys.stdout.write("".join(f"{name:<12} {size:8.2f} MiB\n" for name, size in sizes.items()))
        return 0
    if only and not (device or bench):
        raise ConfigError("--only chooses among the parts of the device's check", hint="add --device or --bench")
    if device or bench:
        from infra.commands.device.check import check_device

        return check_device(bench=bench, data=data, images=images, json_=json_, only=only or ())
    findings = []
    for finding in probe(url) if url else machine():
        findings.append(finding)
        if not json_:
            _show(finding)
    failed = [finding for finding in findings if not finding.ok]
    if json_:
        emit({"ok": not failed, "url": url, "checks": [asdict(finding) for finding in findings]})
    elif failed:
        sys.stdout.write("\nMissing here:\n" + "".join(f"  - {finding.missing}\n" for finding in failed))
    return 1 if failed else 0


def _progress(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def machine() -> Iterator[Finding]:
    """What this machine has: versions, extras, decoder, processors, memory, disk, accelerator."""
    python = platform.python_version()
    versions = ", ".join(f"{name} {version}" for name in _PACKAGES if (version := _version(name)))
    yield Finding(name="versions", ok=True, detail=f"Python {python}, {versions}")
    for extra, modules in _EXTRAS.items():
        absent = [name for name in modules if util.find_spec(name) is None]
        text = f"not installed; pip install 'biovfm[{extra}]'" if absent else "installed"
        yield Finding(name=f"extra {extra}", ok=True, detail=text)
    yield _decoder()
    yield _pillow()
    yield Finding(name="processors", ok=True, detail=f"{usable_cores()} usable of {os.cpu_count()}")
    yield Finding(name="memory", ok=True, detail=f"{_memory_bytes() / 2**30:.1f} GiB")
    yield _disk()
    if util.find_spec("torch") is not None:
        yield _accelerator()


def _show(finding: Finding) -> None:
    mark = "ok  " if finding.ok else "FAIL"
    sys.stdout.write(f"{mark}  {finding.name:<16} {finding.detail or finding.missing}\n")
    sys.stdout.flush()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _decoder() -> Finding:
    from shards.decode import describe_decoder

    report = describe_decoder()
    hint = f"; {report.hint}" if report.hint else ""
    return Finding(name="decoder", ok=True, detail=f"{report.name}: {report.detail}{hint}")


def _pillow() -> Finding:
    """Which Pillow ingest resizes with: pillow-simd is a drop-in, the same samples up to the rounding of resampling."""
    from PIL import __version__, features

    turbo = "with" if features.check_feature("libjpeg_turbo") else "without"
    if ".post" in __version__:
        return Finding(name="pillow", ok=True, detail=f"pillow-simd {__version__}, {turbo} libjpeg-turbo")
    drop_in = 'pip uninstall -y pillow && CC="cc -mavx2" pip install --no-deps --no-binary :all: pillow-simd'
    detail = f"Pillow {__version__}, {turbo} libjpeg-turbo; faster ingest on AVX2: {drop_in}"
    return Finding(name="pillow", ok=True, detail=detail)


def _memory_bytes() -> int:
    """Memory of the machine, or less where its container is limited."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in _LIMIT_FILES:
        file = Path(name)
        if file.is_file() and (text := file.read_text().strip()).isdigit():
            total = min(total, int(text))
    return total


def _disk() -> Finding:
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free / 2**30
    enough = free >= 1
    missing = (
        "" if enough else f"{folder} has less than 1 GiB free, where shards are built; set TMPDIR to a larger disk"
    )
    return Finding(name="temporary disk", ok=enough, detail=f"{free:.1f} GiB free in {folder}", missing=missing)


def _accelerator() -> Finding:
    import torch

    if not torch.cuda.is_available():
        return Finding(name="accelerator", ok=True, detail=f"none, training uses the CPU (torch {torch.__version__})")
    names = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
    return Finding(name="accelerator", ok=True, detail=f"{names} (torch {torch.__version__})")
