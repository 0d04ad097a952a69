"""Every catalogue entry takes the images of its source as it is distributed, and nothing else.

The trees are miniatures with the true names and packing; the jobs run on true pixels in the true formats.
"""

from __future__ import annotations

import gzip
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from infra.commands._survey import survey_lines
from ingest.job.list import list_raw
from ingest.job.select import Sieve
from ingest.job.survey import survey
from ingest.privacy.pseudonyms import group_of
from ingest.raw.items import RawItem
from ingest.settings import IngestSettings
from ingest.source.spec import SourceSpec, catalogue_ids, load_spec
from tests.ingest.material import ingest, tables, tar_of, write_folder, zip_of
from tests.ingest.source.small_files import small_file

_ARCHIVE = re.compile(r"\.(zip|zip\.001|tar|tar\.gz|tgz|tar\.xz)$")
_TEXT = re.compile(r"\.(csv|txt|json|xml|xls|db)$")


@dataclass(slots=True)
class Tree:
    """What a miniature tree holds, and what becomes of it."""

    images: dict[str, str] = field(default_factory=dict)  # path → group and tag
    others: dict[str, str] = field(default_factory=dict)  # path → kind
    tables: dict[str, str] = field(default_factory=dict)

    def has(self, ending: str) -> bool:
        """Whether a file name ends so, packed or not."""
        return any(path.removesuffix(".gz").endswith(ending) for path in (*self.images, *self.others))

    def write(self, folder: Path) -> Path:
        """The tree with a few bytes in each file."""
        return self._written(folder, {path: path.encode() for path in (*self.images, *self.others)})

    def write_real(self, folder: Path, spec: SourceSpec) -> tuple[Path, dict[str, int]]:
        """The tree with real files, and how many images each of its images' files gives."""
        files, counts = {}, {}
        for path, said in {**self.others, **self.images}.items():
            group, _, tag = (said if path in self.images else "").partition(":")
            if _TEXT.search(path):
                files[path] = b"no image\n"
                continue
            made = small_file(
                spec.id, path, group=group, modality=tag or spec.modality[0], mask=said in ("masks", "labels")
            )
            files[path] = made.data
            if path in self.images:
                counts[path] = made.num_images
        return self._written(folder, files), counts

    def _written(self, folder: Path, files: dict[str, bytes]) -> Path:
        there = {path: data for path, data in files.items() if "://" not in path}
        there |= {path: text.encode() for path, text in self.tables.items()}
        return write_folder(folder, _packed(there))


def _read() -> dict[str, Tree]:
    trees: dict[str, Tree] = {}
    blocks = (Path(__file__).parent / "trees.txt").read_text(encoding="utf-8").strip().split("\n\n")
    for block in blocks[1:]:
        name, *lines = block.splitlines()
        tree = trees.setdefault(name, Tree())
        for line in lines:
            if line.startswith("="):
                path, *rows = line[1:].split(" | ")
                tree.tables[path] = "\n".join(rows) + "\n"
            else:
                what, path = line[1:].split(" ", 1)
                (tree.images if line[0] == "+" else tree.others)[path] = what
    return trees


def _packed(files: dict[str, bytes]) -> dict[str, bytes]:
    """Files, those below an archive's name packed into it."""
    out: dict[str, bytes] = {}
    inside: dict[str, dict[str, bytes]] = {}
    for path, data in files.items():
        parts = path.split("/")
        cut = next((at for at, part in enumerate(parts[:-1], 1) if _ARCHIVE.search(part)), 0)
        if cut:
            inside.setdefault("/".join(parts[:cut]), {})["/".join(parts[cut:])] = data
        else:
            plain = path.endswith((".h5.gz", ".ppm.gz", ".csv.gz")) and not data.startswith(b"\x1f\x8b")
            out[path] = gzip.compress(data) if plain else data
    for name, found in inside.items():
        members = _packed(found)
        mode = "w:xz" if name.endswith("xz") else "w:gz" if name.endswith("gz") else "w"
        if name.endswith(".zip.001"):
            whole = zip_of(members)
            third = len(whole) // 3 + 1
            out |= {f"{name[:-1]}{n + 1}": whole[n * third : (n + 1) * third] for n in range(3)}
        else:
            out[name] = zip_of(members) if name.endswith(".zip") else tar_of(members, mode)
    return out


ALL = _read()
"""Source → tree; a source with a second way of distribution has it as `source#way`."""

LISTS = {"fitzpatrick17k"}
"""Sources whose images are fetched from elsewhere."""

QUICK = {
    *("aod", "aria", "dca1", "drishti-gs1", "drsam", "e-ophtha", "hrf", "kvasir-capsule", "messidor-2", "octa-500"),
    *("openi", "openi#dicom", "padchest", "patchcamelyon", "quilt-1m", "rossa", "tdsc-abus", "vicavr"),
    *("vindr-bodypartxr", "vindr-spinexr", "xcad"),
}
"""Sources whose jobs run with the unit tests; those of the others take a while and run with the slow ones."""


def _marked(name: str) -> Any:
    if name not in QUICK:
        return pytest.param(name, marks=pytest.mark.slow)
    asks_the_system = ALL[name].has(".h5")  # h5py runs `uname` when it is imported
    return pytest.param(name, marks=pytest.mark.process) if asks_the_system else name


def spec_of(name: str) -> SourceSpec:
    return load_spec(name.partition("#")[0])


def path_in_tree(raw_path: str) -> str:
    """The path that a tree calls what the index calls `tar://b.png::a.tar`."""
    *members, outer = [re.sub(r"^[a-z0-9]+://", "", part) for part in raw_path.split("::")]
    return outer if raw_path.startswith("gzip://") else "/".join([outer, *reversed(members)])


def tag_of(spec: SourceSpec, item: RawItem) -> str:
    rule = spec.modality_rule
    if rule is None:
        return spec.modality[0]
    if rule.by == "list":
        return item.stated.modality
    return next(tag for tag, regex in rule.patterns.items() if re.search(regex, item.inner_path))


def test_there_is_a_tree_for_every_source() -> None:
    assert {name.partition("#")[0] for name in ALL} == set(catalogue_ids())


@pytest.mark.parametrize("name", sorted(ALL))
def test_entry_takes_the_images_of_its_source(name: str, tmp_path: Path) -> None:
    tree, spec = ALL[name], spec_of(name)
    listing = list_raw(str(tree.write(tmp_path / "raw")), spec, IngestSettings())
    items = {item.inner_path: item for item in listing.items}
    assert set(items) == set(tree.images)
    groups: dict[str, set[str]] = {}
    for path, said in tree.images.items():
        group, _, tag = said.partition(":")
        groups.setdefault(group, set()).add(group_of(spec, items[path], frame="f000000", stated=""))
        assert tag in ("", tag_of(spec, items[path]))
    assert all(len(ids) == 1 for ids in groups.values()), groups
    assert len({next(iter(ids)) for ids in groups.values()}) == len(groups)


@pytest.mark.parametrize("name", [_marked(name) for name in sorted(set(ALL) - LISTS)])
def test_job_keeps_the_images_of_the_source_and_nothing_else(name: str, tmp_path: Path) -> None:
    tree, spec = ALL[name], spec_of(name)
    raw, counts = tree.write_real(tmp_path / "raw", spec)
    report = ingest(raw, tmp_path / "d", spec)
    assert (report.rejected, report.kept) == (0, sum(counts.values())), report.reasons
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in tables(tmp_path / "d")["index"]:
        rows.setdefault(path_in_tree(row["raw_path"]), []).append(row)
    assert {path: len(found) for path, found in rows.items()} == counts
    people: dict[str, set[str]] = {}
    for path, said in tree.images.items():
        group, _, tag = said.partition(":")
        found = sorted(rows[path], key=lambda row: str(row["raw_frame"]))
        assert {row["modality"] for row in found} == {tag or spec.modality[0]}
        for number, row in enumerate(found):
            of_frame = group.split(",")
            people.setdefault(of_frame[number % len(of_frame)], set()).add(row["group_id"])
    assert all(len(ids) == 1 for ids in people.values()), people
    assert len({next(iter(ids)) for ids in people.values()}) == len(people)


@pytest.mark.process
def test_job_on_a_list_of_addresses_fetches_the_images(tmp_path: Path) -> None:
    tree, spec = ALL["fitzpatrick17k"], load_spec("fitzpatrick17k")
    names = [path.rpartition("/")[2] for path in tree.images]
    web = write_folder(
        tmp_path / "web", {name: small_file(spec.id, name, group="", modality="").data for name in names}
    )
    quiet = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(quiet, directory=str(web))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        here = f"http://127.0.0.1:{server.server_port}"
        lists = {path: text.replace("http://127.0.0.1:9", here) for path, text in tree.tables.items()}
        report = ingest(replace(tree, tables=lists).write(tmp_path / "raw"), tmp_path / "d", spec)
        server.shutdown()
    assert (report.kept, report.rejected) == (len(names), 0)
    rows = tables(tmp_path / "d")["index"]
    assert {row["raw_path"] for row in rows} == {f"{here}/{name}" for name in names}
    assert len({row["group_id"] for row in rows}) == len(names)


@pytest.mark.parametrize("name", sorted(ALL))
def test_entry_knows_what_the_other_files_are(name: str, tmp_path: Path) -> None:
    tree, spec = ALL[name], spec_of(name)
    if spec.layout.reader == "list":
        return
    listing = list_raw(str(tree.write(tmp_path / "raw")), spec, IngestSettings())
    wanted = Counter(kind for kind in tree.others.values() if kind != "?")
    assert {kind: count for kind, count in listing.ignored.items() if kind in wanted} == wanted


@pytest.mark.parametrize("name", sorted(ALL))
def test_no_mask_label_or_other_split_is_an_image(name: str) -> None:
    sieve = Sieve(spec_of(name).layout)
    for path, kind in ALL[name].others.items():
        if kind not in ("?", "unlisted", "copies"):
            assert sieve(RawItem(path=path)) == kind


@pytest.mark.parametrize("name", sorted(ALL))
def test_check_explains_the_tree_on_one_screen(name: str, tmp_path: Path) -> None:
    tree, spec = ALL[name], spec_of(name)
    found = survey(str(tree.write(tmp_path / "raw")), spec, IngestSettings())
    lines = survey_lines(found, spec)
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert not found.unexpected
    assert found.state in ("incomplete", "unknown")  # a miniature is never all of a source
    assert found.num_files == len(tree.images) or found.unopened


def test_every_entry_says_from_where_its_layout_is_known_and_what_its_number_counts() -> None:
    for name in catalogue_ids():
        spec = load_spec(name)
        assert all((spec.layout.evidence, spec.layout.confidence, spec.count_note, spec.citation)), name
        assert spec.layout.confidence != "none" or "no public" in spec.layout.evidence, name
