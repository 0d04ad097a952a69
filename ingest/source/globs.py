"""The globs of a source's YAML file: paths below the raw folder, archive names included."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}")


def glob_regex(glob: str) -> re.Pattern[str]:
    """`*` stays in a folder, `**` crosses them; a glob without `/` is matched at any depth. Case is ignored.

    Braces are expanded: `images_{001..012}.tar.gz`, `{train,val}/*.png`.
    """
    return any_of((glob,))


@cache
def any_of(globs: tuple[str, ...]) -> re.Pattern[str]:
    """One expression that matches where any of the globs does; without globs it matches nothing."""
    expanded = [_translated(one) for glob in globs for one in expand(glob)]
    return re.compile("|".join(expanded) if expanded else r"(?!)", re.IGNORECASE | re.DOTALL)


def expand(glob: str) -> list[str]:
    """All names of a pattern with braces: a range of numbers of one width, or a list of words."""
    found = _RANGE.search(glob)
    if found is None:
        return [glob]
    words: Iterable[str]
    if found[3] is None:
        width = len(found[1])
        words = (f"{number:0{width}d}" for number in range(int(found[1]), int(found[2]) + 1))
    else:
        words = found[3].split(",")
    return [name for word in words for name in expand(glob[: found.start()] + word + glob[found.end() :])]


def collapse(names: Iterable[str]) -> list[str]:
    """The inverse of `expand` for people: runs of numbered names as one, `images_{003..011}.tar.gz`."""
    runs: list[list[str]] = []
    for name in names:
        if runs and _follows(runs[-1][-1], name):
            runs[-1].append(name)
        else:
            runs.append([name])
    return [_short(run) for run in runs]


def _parts(name: str) -> tuple[str, str, str] | None:
    found = list(re.finditer(r"\d+", name))
    if not found:
        return None
    last = found[-1]
    return name[: last.start()], last[0], name[last.end() :]


def _follows(before: str, name: str) -> bool:
    first, second = _parts(before), _parts(name)
    if first is None or second is None or (first[0], first[2]) != (second[0], second[2]):
        return False
    return int(second[1]) == int(first[1]) + 1


def _short(run: list[str]) -> str:
    first, last = _parts(run[0]), _parts(run[-1])
    if len(run) < 3 or first is None or last is None:
        return ", ".join(run)
    return f"{first[0]}{{{first[1]}..{last[1]}}}{first[2]}"


def _translated(glob: str) -> str:
    pattern = glob if "/" in glob else f"**/{glob}"
    out = ""
    position = 0
    while position < len(pattern):
        if pattern.startswith("**/", position):
            out, position = out + "(?:.*/)?", position + 3
        elif pattern.startswith("**", position):
            out, position = out + ".*", position + 2
        else:
            out += {"*": "[^/]*", "?": "[^/]"}.get(pattern[position], re.escape(pattern[position]))
            position += 1
    return out
