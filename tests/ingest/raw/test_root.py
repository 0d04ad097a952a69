"""A walk finds every regular file once, in a fixed order, and says what it leaves out."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ingest.job.list import list_raw
from ingest.raw.archive_reading import open_items
from ingest.raw.items import RejectError
from ingest.raw.root import RawRoot, Walked, open_regular, walk
from ingest.settings import IngestSettings, LimitSettings
from shards.errors import SourceError, UnavailableError
from tests.ingest.material import encoded, ingest, photo, public_spec, write_folder, zip_of

ANYWAY = "link to a folder that is listed anyway"


def test_a_walk_is_sorted_by_whole_paths(tmp_path: Path) -> None:
    """Names on either side of the slash in the alphabet are what a folder-by-folder walk gets wrong."""
    rng = random.Random(0)
    names = ["a", "a-b", "a.b", "a0", "ab", "B", "ä", "z z"]
    for _ in range(300):
        file = tmp_path.joinpath(*(rng.choice(names) for _ in range(rng.randint(0, 3))), rng.choice(names) + ".png")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x" * rng.randint(0, 9))
    expected = [
        ((Path(parent) / name).relative_to(tmp_path).as_posix(), (Path(parent) / name).stat().st_size)
        for parent, _, files in os.walk(tmp_path)
        for name in files
    ]
    assert [(file.path, file.size) for file in walk(tmp_path)] == sorted(expected)
    assert len(expected) > 100


def test_linked_folders_are_followed_once_and_loops_end(tmp_path: Path) -> None:
    raw, disk = tmp_path / "raw", tmp_path / "disk"
    write_folder(raw, {"a.png": b"1"})
    write_folder(disk, {"train/b.png": b"22", "c.png": b"333"})
    (disk / "train" / "up").symlink_to(disk)
    (raw / "all").symlink_to(disk)
    (raw / "again").symlink_to(disk / "train")
    (raw / "loop").symlink_to(raw)
    (raw / "parent").symlink_to(tmp_path)
    (raw / "c.png").symlink_to(disk / "c.png")
    found = {file.path: file for file in walk(raw)}
    assert {path for path, file in found.items() if not file.ignored} == {
        *("a.png", "again/b.png", "again/up/c.png", "c.png"),
    }
    assert {path for path, file in found.items() if file.ignored == ANYWAY} == {
        *("again/up/train", "all", "loop", "parent/disk", "parent/raw"),
    }


def test_a_maze_of_links_is_gone_through_in_linear_time(tmp_path: Path) -> None:
    for number in range(40):
        folder = tmp_path / "maze" / f"{number:02d}"
        write_folder(folder, {"a.png": b"1"})
        for way in "xyz":
            (folder / way).symlink_to(tmp_path / "maze" / f"{number + 1:02d}")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "in").symlink_to(tmp_path / "maze" / "00")
    found = list(walk(tmp_path / "raw"))
    assert sum(not file.ignored and not file.rejected for file in found) == 40
    assert len(found) < 200


@pytest.mark.process
def test_folders_may_lie_deep_in_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    depth = min(1500, (4000 - len(str(tmp_path))) // 2)
    monkeypatch.chdir(tmp_path)
    for _ in range(depth):
        Path("d").mkdir()
        os.chdir("d")
    Path("a.png").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    assert [file.path for file in walk(tmp_path)] == ["d/" * depth + "a.png"]
    subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)


@pytest.mark.process
def test_what_is_no_regular_file_is_said_and_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = write_folder(tmp_path / "raw", {"z.png": encoded(photo(0))})
    for name in ("f.png", "f.zip"):
        os.mkfifo(raw / name)
    for name in ("zero.png", "zero.tar", "zero.tar.gz", "zero.zip"):
        (raw / name).symlink_to("/dev/zero")
    (raw / "gone.png").symlink_to("nowhere")
    (raw / "self.png").symlink_to("self.png")
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(raw)  # a socket's path must be short
        listener.bind("s.png")
    found = {file.path: file.rejected for file in walk(raw) if file.rejected}
    assert set(found) == {
        *("f.png", "f.zip", "gone.png", "s.png", "self.png", "zero.png", "zero.tar", "zero.tar.gz", "zero.zip"),
    }
    report = ingest(raw, tmp_path / "dataset")
    assert (report.kept, report.reasons) == (1, {"unsupported": 9})


def test_a_file_that_turns_into_a_device_after_the_listing_is_not_read(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a.png": b"x", "b.png": b"x"})
    items = list_raw(str(tmp_path), public_spec(), IngestSettings()).items
    for name, make in (("a.png", os.mkfifo), ("b.png", lambda path: path.symlink_to("/dev/zero"))):
        (tmp_path / name).unlink()
        make(tmp_path / name)
    for _, raw in open_items(RawRoot(str(tmp_path)), list(items), LimitSettings()):
        with pytest.raises(RejectError):
            raw.read()


@pytest.mark.process
@pytest.mark.skipif(os.name != "posix", reason="needs users")
def test_a_folder_that_may_not_be_entered_is_unavailable(tmp_path: Path) -> None:
    """As another user where this one may enter everything."""
    tmp_path.chmod(0o755)
    for folder in [*tmp_path.parents][:3]:
        if folder.owner() == tmp_path.owner() and folder != Path("/tmp"):
            folder.chmod(0o755)
    raw = write_folder(tmp_path / "raw", {"open/a.png": b"1", "closed/b.png": b"2", "c.png": b"3", "d.zip": zip_of({})})
    (raw / "closed").chmod(0)
    program = (
        "import os, sys; sys.path[:0] = eval(sys.argv[2])\n"
        "from pathlib import Path\n"
        "from ingest.raw.root import walk\n"
        "if os.getuid() == 0: os.setgid(65534); os.setuid(65534)\n"
        "print([tuple(file) for file in walk(Path(sys.argv[1]))])"
    )
    command = [sys.executable, "-c", program, str(raw), repr(sys.path)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    (raw / "closed").chmod(0o755)
    found = {Walked(*values).path: Walked(*values) for values in eval(answer.stdout)}
    assert found["closed/"].unavailable == "EACCES"
    assert {path for path, file in found.items() if not file.unavailable} == {"c.png", "d.zip", "open/a.png"}


def test_what_is_unavailable_is_listed_and_says_so_when_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = [Walked("closed/", unavailable="EACCES"), Walked("x.png", unavailable="EIO")]
    monkeypatch.setattr(RawRoot, "walk", lambda self: iter(closed))
    root = RawRoot(str(write_folder(tmp_path, {"a.png": b"1"})))
    listing = list_raw(root.url, public_spec(), IngestSettings())
    assert [(item.path, item.kind) for item in listing.items] == [("closed/", "unavailable"), ("x.png", "unavailable")]
    for _, raw in open_items(root, list(listing.items), LimitSettings()):
        with pytest.raises(UnavailableError):
            raw.open()


def test_a_root_is_a_folder_or_a_file(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a.png": b"1", "d/b.png": b"22"})
    assert [(file.path, file.size) for file in RawRoot(str(tmp_path)).walk()] == [("a.png", 1), ("d/b.png", 2)]
    single = RawRoot(f"file://{tmp_path}/d/b.png")
    assert ([file.path for file in single.walk()], single.single) == (["b.png"], "b.png")
    folder = RawRoot(f"{tmp_path}/d/b.png", stands_for_folder=lambda name: name == "b.png")
    assert ([file.path for file in folder.walk()], folder.single) == (["b.png"], "")
    with single.open("b.png") as stream:
        assert stream.read() == b"22"
    with pytest.raises(SourceError, match="no raw data"):
        RawRoot(str(tmp_path / "gone"))


def test_a_remote_root_is_walked_the_same_way() -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe({"/raw-items/b.png": b"22", "/raw-items/a/c.png": b"333"})
    root = RawRoot("memory://raw-items")
    assert [(file.path, file.size) for file in root.walk()] == [("a/c.png", 3), ("b.png", 2)]
    assert root.size("b.png") == 2
    with root.open("a/c.png") as stream:
        assert stream.read() == b"333"


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("fifo", "zero", "."):
        with pytest.raises(OSError, match=r"no regular file|directory"):
            open_regular(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "gone")


def test_a_file_is_stored_whole_or_in_parts(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a.zip": b"123", "b.001": b"12", "b.002": b"345"})
    root = RawRoot(str(tmp_path))
    whole, listed = root.stored("a.zip"), root.stored("a.zip", size=7)
    assert (whole.size, listed.size, whole.key == listed.key, bool(whole.key)) == (3, 7, True, True)
    parts = root.stored("b.001", (("b.001", 2), ("b.002", 3)))
    assert (parts.size, parts.key) == (5, ())
    for stored, data in ((whole, b"123"), (parts, b"12345")):
        with stored.open() as stream:
            assert stream.read() == data
    gone = root.stored("gone")
    assert (gone.size, gone.key) == (0, ())
    (tmp_path / "a.zip").write_bytes(b"1234")
    assert root.stored("a.zip").key != whole.key


def test_two_names_that_are_written_alike_are_not_taken_for_one_file(tmp_path: Path) -> None:
    """Bytes that are no text are written with a backslash, which may be what another file is really called."""
    write_folder(tmp_path, {"a\\xff.png": b"1", "b.png": b"2"})
    for name in (b"a\xff.png", b"c\xff.png"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(b"3")
    found = [(os.fsencode(file.path), bool(file.ignored)) for file in walk(tmp_path)]
    assert found == [(b"a\\xff.png", False), (b"a\xff.png", True), (b"b.png", False), (b"c\xff.png", False)]
