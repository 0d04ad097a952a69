"""Makes the frozen witnesses: what a user of an earlier release already has.

    python tests/frozen/make.py OUT        # run by the release whose data are to be frozen

A finished dataset (five modalities, exact and near duplicates, rejects, two jobs), a lock of it, the raw files and the
half-staged dataset of a job that was killed, a training run with checkpoints of each method, an exported model and a
results file. Everything is drawn from fixed seeds; `tests/frozen/test_witnesses.py` reads it with the code of today.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int, *, height: int = 72, width: int = 96, gray: bool = False) -> Image.Image:
    """A smooth random picture."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8) if gray else (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def save(path: Path, image: Image.Image, kind: str, **options: int) -> None:
    """Write one encoded picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    path.write_bytes(buffer.getvalue())


def write_raw(raw: Path) -> None:
    """Raw files of three sources: photographs, a volume and two DICOM files that pydicom ships."""
    import nibabel
    import pydicom

    for n in range(16):
        save(raw / "eye" / f"patient{n // 4}" / f"{n:02d}.jpg", picture(n), "JPEG", quality=88)
    save(raw / "eye" / "patient0" / "again.png", picture(1), "PNG")
    save(raw / "eye" / "patient9" / "near.png", picture(2), "PNG")
    (raw / "eye" / "patient9" / "copy.jpg").write_bytes((raw / "eye" / "patient1" / "05.jpg").read_bytes())
    save(raw / "eye" / "patient9" / "tiny.png", picture(50, height=12, width=12), "PNG")
    (raw / "eye" / "patient9" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    data = np.stack([np.asarray(picture(60 + n, gray=True), np.int16) for n in range(6)], axis=2)
    (raw / "volume").mkdir()
    nibabel.save(nibabel.Nifti1Image(data, np.diag([1.0, 1.0, 2.0, 1.0])), raw / "volume" / "head.nii.gz")
    shipped = Path(pydicom.__file__).parent / "data" / "test_files"
    (raw / "dicom").mkdir()
    for name in ("CT_small.dcm", "MR_small.dcm"):
        (raw / "dicom" / name).write_bytes((shipped / name).read_bytes())
    for n in range(40):
        save(raw / "cells" / f"{n:02d}.jpg", picture(100 + n, gray=n % 2 == 0), "JPEG", quality=85)


KILLED = """
import os, signal, sys
from ingest.job.run import run_job
from ingest.settings import IngestSettings
from ingest.source.spec import from_flags

def watch(now):
    if now.stage == "map" and now.done >= 24:
        os.kill(os.getpid(), signal.SIGKILL)

spec = from_flags(name="cells", modality="Microscopy", deidentified=True)
run_job(spec, "raw/cells", "half", workers=0, settings=IngestSettings(unit_files=8), progress=watch)
"""


def make(out: Path) -> None:
    """Make all witnesses in a folder."""
    out.mkdir(parents=True)
    os.chdir(out)
    write_raw(Path("raw"))
    environment = {**os.environ, "BIOVFM_SECRET": "frozen", "PYTHONPATH": str(ROOT)}
    biovfm = [sys.executable, "-m", "infra.cli"]

    def run(*words: str, code: int = 0) -> None:
        done = subprocess.run([*biovfm, *words], env=environment, check=False)
        if done.returncode != code:
            raise SystemExit(f"{words} ended with {done.returncode}")

    run("ingest", "eye", "raw/eye", "dataset", "--modality", "Fundus", "--group", "folder", "--deidentified")
    run("ingest", "scans", "raw/dicom", "dataset", "--modality", "CT", "--modality", "MR")
    run("ingest", "heads", "raw/volume", "dataset", "--modality", "MR")
    run("subset", "create", "dataset", "--where", "width >= 64", "--out", "subset.lock.yaml")
    killed = subprocess.run([sys.executable, "-c", KILLED], env=environment, check=False)
    if killed.returncode != -9:
        raise SystemExit("the job was not killed")
    small = ("--set", "model.size=nano", "--set", "run.steps=6", "--set", "run.global_batch=8")
    small += ("--set", "run.unit_images=8", "--set", "checkpoint.every=3", "--set", "checkpoint.keep_last=2")
    run("pretrain", "subset.lock.yaml", "--recipe", "tiny", *small, *MAE, "--out", "mae")
    run("pretrain", "subset.lock.yaml", "--recipe", "tiny-dinov2", *small, *DINOV2, "--out", "dinov2")
    with Path("order.jsonl").open("wb") as out_file:
        words = ["stream", "subset.lock.yaml", "--keys", "--epoch", "0", "--global-batch", "8"]
        subprocess.run([*biovfm, *words], env=environment, check=True, stdout=out_file)
    run("probe", "mae", "--tasks", "breast", "--skip-missing", "--out", "results.jsonl")
    names = {str(out): "WITNESS"}  # the test puts its own folder there
    names |= {os.environ.get("BIOVFM_MEDMNIST_ROOT", str(Path.home() / ".medmnist")): "MEDMNIST"}
    names |= {os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache")): "CACHE"}
    for path in out.rglob("*"):
        if path.is_dir() and path.name == "tensorboard":
            shutil.rmtree(path)
        elif path.name.startswith("reconstructions"):
            path.unlink()
        elif path.is_file():
            data = before = path.read_bytes()
            for folder, name in names.items():
                data = data.replace(folder.encode(), name.encode())
            if data != before:
                path.write_bytes(data)


MAE = ("--set", "method.decoder_width=32", "--set", "method.decoder_depth=1", "--set", "method.decoder_heads=2")
DINOV2 = ("--set", "method.head={prototypes: 64, hidden: 32, bottleneck: 16, layers: 3}")
ROOT = Path(__file__).resolve().parents[2]

if __name__ == "__main__":
    make(Path(sys.argv[1]).absolute())
