"""Every catalogue entry takes the images of its source as it is distributed, and nothing else."""

from __future__ import annotations

import gzip
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ingest.job.list import list_raw
from ingest.job.select import Sieve
from ingest.privacy.pseudonyms import group_of
from ingest.raw.items import RawItem
from ingest.settings import IngestSettings
from ingest.source.spec import SourceSpec, catalogue_ids, load_spec
from tests.ingest.material import tar_of, write_folder, zip_of

_ARCHIVE = re.compile(r"\.(zip|tar|tar\.gz|tgz|tar\.xz)$")


@dataclass(slots=True)
class Tree:
    """What a miniature tree holds, and what becomes of it."""

    images: dict[str, str] = field(default_factory=dict)  # path → group and tag
    others: dict[str, str] = field(default_factory=dict)  # path → kind
    tables: dict[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> Path:
        files = {path: path.encode() for path in (*self.images, *self.others) if "://" not in path}
        files |= {path: text.encode() for path, text in self.tables.items()}
        return write_folder(folder, _packed(files))


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
            out[path] = gzip.compress(data) if path.endswith((".h5.gz", ".ppm.gz")) else data
    for name, found in inside.items():
        members = _packed(found)
        mode = "w:xz" if name.endswith("xz") else "w:gz" if name.endswith("gz") else "w"
        out[name] = zip_of(members) if name.endswith(".zip") else tar_of(members, mode)
    return out


ALL = _read()


def tag_of(spec: SourceSpec, item: RawItem) -> str:
    rule = spec.modality_rule
    if rule is None:
        return spec.modality[0]
    if rule.by == "list":
        return item.stated.modality
    return next(tag for tag, regex in rule.patterns.items() if re.search(regex, item.inner_path))


def test_there_is_a_tree_for_every_source() -> None:
    assert set(ALL) == set(catalogue_ids())


@pytest.mark.parametrize("name", sorted(ALL))
def test_entry_takes_the_images_of_its_source(name: str, tmp_path: Path) -> None:
    tree, spec = ALL[name], load_spec(name)
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


@pytest.mark.parametrize("name", sorted(ALL))
def test_entry_knows_what_the_other_files_are(name: str, tmp_path: Path) -> None:
    tree, spec = ALL[name], load_spec(name)
    if spec.layout.reader == "list":
        return
    listing = list_raw(str(tree.write(tmp_path / "raw")), spec, IngestSettings())
    wanted = Counter(kind for kind in tree.others.values() if kind != "?")
    assert {kind: count for kind, count in listing.ignored.items() if kind in wanted} == wanted


@pytest.mark.parametrize("name", sorted(ALL))
def test_no_mask_label_or_other_split_is_an_image(name: str) -> None:
    sieve = Sieve(load_spec(name).layout)
    for path, kind in ALL[name].others.items():
        if kind not in ("?", "unlisted", "copies"):
            assert sieve(RawItem(path=path)) == kind


def test_every_entry_says_from_where_its_layout_is_known_and_what_its_number_counts() -> None:
    for name in catalogue_ids():
        spec = load_spec(name)
        assert all((spec.layout.evidence, spec.layout.confidence, spec.count_note, spec.citation)), name
        assert spec.layout.confidence != "none" or "no public" in spec.layout.evidence, name
