"""A reader whose library is missing is one line that names the extra, before anything is read."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest

import ingest.readers.libraries as libraries
from ingest.raw.items import RawFile
from ingest.readers import ReadOptions, reader_for
from ingest.readers.libraries import EXTRAS, check_libraries, library_for
from shards.errors import ConfigError, LibraryError
from tests.ingest.material import encoded, ingest, photo, public_spec, write_folder


@pytest.fixture
def without_video(monkeypatch: pytest.MonkeyPatch) -> None:
    found = libraries.find_spec
    monkeypatch.setattr(libraries, "find_spec", lambda name: None if name == "av" else found(name))


@pytest.mark.usefixtures("without_video")
def test_the_line_names_reader_library_and_extra() -> None:
    check_libraries(["images", "dicom", "slide", "hdf5"])
    with pytest.raises(ConfigError) as caught:
        check_libraries(["images", "video"])
    assert "video reader needs av" in caught.value.message
    assert caught.value.hint == "pip install 'biovfm[video]'"


@pytest.mark.usefixtures("without_video")
def test_a_job_stops_before_it_reads_and_rejects_nothing(tmp_path: Path) -> None:
    raw = write_folder(tmp_path / "raw", {"a.png": encoded(photo(1)), "b.mp4": b"film"})
    with pytest.raises(ConfigError, match="video reader"):
        ingest(raw, tmp_path / "d", public_spec())
    assert not (tmp_path / "d" / "rejects").exists()
    pictures = write_folder(tmp_path / "pictures", {"a.png": encoded(photo(1))})
    assert ingest(pictures, tmp_path / "d", public_spec()).kept == 1


def test_the_extras_exist_and_all_holds_them() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for library, extra in ((libs[0], extra) for libs, extra in EXTRAS.values()):
        assert any(line.startswith(library) for line in extras[extra])
        assert extra in extras["all"][0]
        assert not any(line.startswith(library) for line in project["dependencies"])


def test_a_library_that_some_files_need_is_no_property_of_the_file() -> None:
    assert library_for("this", "zlib", "codecs").crc32(b"") == 0
    with pytest.raises(LibraryError) as caught:
        library_for("JPEG of 12 bits", "no_such_library", "codecs")
    assert caught.value.message == "JPEG of 12 bits needs no_such_library, which is not installed"
    assert "biovfm[codecs]" in (caught.value.hint or "")


@pytest.fixture
def broken_h5py(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is there, as far as can be seen, and does not fit this machine."""
    (tmp_path / "stub").mkdir()
    (tmp_path / "stub" / "h5py.py").write_text(
        "raise ImportError('libhdf5.so.310:\\ncannot open shared object file')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "stub"))
    for name in [name for name in sys.modules if name.partition(".")[0] == "h5py"]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.usefixtures("broken_h5py")
@pytest.mark.parametrize("name", ["a.h5", "a.npy"])
def test_a_library_that_cannot_be_loaded_is_an_error_of_the_machine(name: str) -> None:
    """Also where only the content asks for it."""
    raw = RawFile.of_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100), name)
    with pytest.raises(LibraryError) as caught:
        list(reader_for("auto", name)(raw, ReadOptions()))
    assert (
        "the hdf5 reader needs h5py, which is installed and cannot be loaded here (ImportError: "
        in caught.value.message
    )
    assert "\n" not in caught.value.message
    assert "biovfm[hdf5]" in caught.value.hint


@pytest.mark.slow
@pytest.mark.usefixtures("broken_h5py")
def test_a_job_stops_at_a_library_that_cannot_be_loaded_and_rejects_nothing(tmp_path: Path) -> None:
    raw = write_folder(tmp_path / "raw", {"a.png": encoded(photo(1)), "b.h5": b"\x89HDF\r\n\x1a\n" + bytes(100)})
    with pytest.raises(LibraryError, match="h5py"):
        ingest(raw, tmp_path / "d", public_spec())
    assert not (tmp_path / "d" / "rejects").exists()
