"""A crash of the library that lists RAR and 7-Zip archives is no crash of the job."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from ingest.raw.apart import Apart
from ingest.raw.archive import top
from ingest.raw.archive_listing import archive_items
from ingest.raw.items import RawItem
from ingest.raw.listing import all_items
from ingest.raw.rar_and_7z import available
from ingest.raw.root import RawRoot
from ingest.settings import LimitSettings
from shards.errors import MachineError
from tests.ingest.material import encoded, photo, write_folder, zip_of
from tests.ingest.raw.test_rar_and_7z import rar5, seven_zip

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not available(), reason="needs libarchive"),
]
FILES = {"d/ä b.png": encoded(photo(1)), "x.zip": zip_of({"y.png": encoded(photo(2))}), "../up.png": b"x"}


def crashing(folder: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """Let the process that lists find a libarchive that ends it."""
    write_folder(folder / "libarchive", {"__init__.py": b"", "ffi.py": f"import os, signal\n{how}\n".encode()})
    monkeypatch.setenv("PYTHONPATH", str(folder))


def test_the_same_files_as_in_this_process(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a.rar": rar5(FILES), "b.7z": seven_zip(FILES), "cut.rar": rar5(FILES)[:-200]})
    root, limits = RawRoot(str(tmp_path)), LimitSettings()
    apart = Apart(limits)
    for name in ("a.rar", "b.7z", "cut.rar"):
        base = RawItem(path=name, size=(tmp_path / name).stat().st_size, stamp="1f")
        found = list(apart.files(root.url, base))
        here = archive_items(top(root.stored(name, size=base.size), "libarchive"), replace(base, size=0), limits)
        assert found == list(here)
        assert found
    apart.close()
    apart.close()


def test_an_archive_on_which_the_library_crashes_is_a_reject_and_the_others_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = write_folder(tmp_path / "raw", {"a.rar": rar5(FILES), "b.7z": seven_zip(FILES), "c.zip": zip_of(FILES)})
    crashing(tmp_path / "fake", monkeypatch, "os.kill(os.getpid(), signal.SIGSEGV)")
    found = list(all_items(RawRoot(str(raw)), LimitSettings()))
    assert [(item.path, item.kind) for item in found if item.path != "c.zip"] == [
        ("a.rar", "reject"),
        ("b.7z", "reject"),
    ]
    assert all("libarchive crashes" in item.detail for item in found if item.path != "c.zip")
    assert {item.member for item in found if item.path == "c.zip"} >= {"d/ä b.png"}


@pytest.mark.parametrize("how", ["os.kill(os.getpid(), signal.SIGKILL)", "os._exit(3)"])
def test_another_end_of_the_process_is_an_error_of_the_machine(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = write_folder(tmp_path / "raw", {"a.rar": rar5(FILES)})
    crashing(tmp_path / "fake", monkeypatch, how)
    with pytest.raises(MachineError, match=r"the process that lists a\.rar ended"):
        list(all_items(RawRoot(str(raw)), LimitSettings()))


def test_a_listing_that_is_given_up_leaves_no_process(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a.rar": rar5(FILES)})
    apart, url = Apart(LimitSettings()), str(tmp_path)
    base = RawItem(path="a.rar", size=(tmp_path / "a.rar").stat().st_size)
    whole = list(apart.files(url, base))
    files = apart.files(url, base)
    assert next(files) == whole[0]
    process = apart._process
    assert process is not None
    files.close()
    assert process.returncode == -signal.SIGKILL
    assert list(apart.files(url, base)) == whole
    apart.close()
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)
