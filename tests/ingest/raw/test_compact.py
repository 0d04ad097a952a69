"""Long sequences in little memory, and the walk that fills them."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from ingest.raw.compact import Compact
from ingest.raw.items import RawItem, RawRoot


@pytest.mark.parametrize("num", [0, 1, 1023, 1024, 1025, 5000])
def test_holds_what_it_was_given(num: int) -> None:
    items = [RawItem(path=f"a/{number}.png", size=number) for number in range(num)]
    held = Compact(iter(items))
    assert (len(held), list(held), held[:3]) == (num, items, items[:3])
    picks = sorted({0, 1, 1023, 1024, num - 1, -1, -num} & set(range(-num, num)))
    assert [held[at] for at in picks] == [items[at] for at in picks]
    with pytest.raises(IndexError):
        held[num]


def test_takes_a_tenth_of_the_memory() -> None:
    num = 9000
    held = Compact(RawItem(path=f"patient{at % 97:03d}/scan/{at:07d}.dcm", size=at) for at in range(num))
    assert sum(len(block) for block in held._blocks) < 40 * num


def test_the_walk_is_sorted_by_whole_paths(tmp_path: Path) -> None:
    """Names on either side of the slash in the alphabet are what a folder-by-folder walk gets wrong."""
    rng = random.Random(0)
    names = ["a", "a-b", "a.b", "a0", "ab", "B", "ä", "z z", "__MACOSX", ".git"]
    for _ in range(300):
        file = tmp_path.joinpath(*(rng.choice(names) for _ in range(rng.randint(0, 3))), rng.choice(names) + ".png")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x" * rng.randint(0, 9))
    (tmp_path / "ab.png").unlink(missing_ok=True)
    (tmp_path / "ab.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    walked = list(RawRoot(str(tmp_path)).walk())
    expected = []
    for parent, folders, files in os.walk(tmp_path):
        folders[:] = [folder for folder in folders if folder not in ("__MACOSX", ".git")]
        paths = [Path(parent) / name for name in files]
        expected += [(p.relative_to(tmp_path).as_posix(), p.stat().st_size if p.exists() else -1) for p in paths]
    assert walked == sorted(expected)
    assert len(walked) > 100
