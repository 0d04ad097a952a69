"""Names, dates and identifiers never leave the raw data: what an index may say about where an image came from."""

from __future__ import annotations

import hashlib
import re

from ingest.raw.items import RawItem
from ingest.settings import IngestSettings
from ingest.source.spec import SourceSpec
from shards.errors import ConfigError

PUBLIC_KEY = b"biovfm public sources"
_EXTENSIONS = re.compile(r"(?:\.(?:nii|tar|ome))?\.[A-Za-z0-9]{1,5}$")
_SCHEME = re.compile(r"^(zip|tar|gzip|libarchive)://")


class KeyedNames:
    """Keyed hashes of the names of one source.

    Args:
        source: Source id.
        secret: The user's secret; empty takes the fixed key of sources that are published de-identified.
    """

    def __init__(self, source: str, secret: str = "") -> None:
        self._key = hashlib.blake2b(secret.encode() or PUBLIC_KEY, digest_size=32).digest()
        self._source = source

    def group_id(self, group: str) -> str:
        """24 hex digits: the keyed hash of a group."""
        return self.digest("group", group, 12)

    def path(self, path: str) -> str:
        """A path, each part replaced by its keyed hash, the extension of a known format kept."""
        parts = path.split("/")
        extension = _EXTENSIONS.search(parts[-1])
        tail = extension[0].lower() if extension and is_format(extension[0]) else ""
        return "/".join(self.digest("path", part, 8) for part in parts) + tail

    def digest(self, use: str, text: str, num_bytes: int) -> str:
        """The keyed hash of a text, for one use."""
        data = f"{self._source}\0{text}".encode("utf-8", "surrogateescape")
        return hashlib.blake2b(data, digest_size=num_bytes, key=self._key, person=use.encode()).hexdigest()


class Pseudonyms:
    """Turns raw paths and groups into what may be published.

    Sources that are published de-identified keep their raw paths, and their group ids are hashed with a fixed key, so
    that everybody who ingests them gets the same bytes. For all others both are hashed with the user's secret.

    Args:
        spec: The source.
        settings: The job's settings.

    Raises:
        ConfigError: The source needs a secret and there is none.
    """

    def __init__(self, spec: SourceSpec, settings: IngestSettings) -> None:
        self.hides_paths = hides_paths(spec, settings)
        secret = settings.secret.get_secret_value()
        if not secret and not spec.deidentified:
            raise ConfigError(
                f"source {spec.id} may hold names in tags or paths: a secret is needed to hash them",
                hint="set BIOVFM_SECRET, or `deidentified: true` in the source's YAML if nothing identifies a person",
            )
        self._names = KeyedNames(spec.id, "" if spec.deidentified else secret)

    @property
    def key_check(self) -> str:
        """Short digest that tells two keys apart without giving either away; part of the job id."""
        return self._names.digest("key", "check", 8)

    def group_id(self, group: str) -> str:
        """24 hex digits: the keyed hash of a group of this source."""
        return self._names.group_id(group)

    def raw_path(self, item: RawItem) -> str:
        """The raw path as it may be published: each part replaced by its keyed hash where paths are hidden.

        The chain, the number of folders and the extensions stay, so that who holds raw data and secret finds the
        file.
        """
        if not self.hides_paths:
            return item.raw_path
        scheme = _SCHEME.match(item.raw_path)
        if scheme is None:
            return self._names.path(item.raw_path if item.kind == "url" else item.path)
        outer = self.raw_path(item.holder) if item.holder else self._names.path(item.path)
        return f"{scheme[0]}{self._names.path(item.member)}::{outer}"

    def stamp(self, item: RawItem) -> str:
        """What besides its size tells whether a raw file has changed; empty where nothing does.

        A time of change may be that of an examination, so it leaves as a keyed hash.
        """
        if item.check:
            return f"{item.check:08x}"
        return self._names.digest("stamp", f"{item.raw_path}\0{item.stamp}", 6) if item.stamp else ""


def hides_paths(spec: SourceSpec, settings: IngestSettings) -> bool:
    """Whether raw paths are published as keyed hashes."""
    policy = spec.raw_paths if settings.raw_paths == "source" else settings.raw_paths
    if policy == "auto":
        policy = "keep" if spec.deidentified else "hash"
    return policy == "hash"


def is_format(extension: str) -> bool:
    """Whether an extension is that of a known format; anything else may be part of a name or an identifier."""
    from ingest.readers import EXTENSIONS

    known = {name for names in EXTENSIONS.values() for name in names} | {"zip", "tar", "tgz", "gz", "xz", "bz2"}
    return extension.lower().lstrip(".").removeprefix("tar.") in known


def group_of(spec: SourceSpec, item: RawItem, *, frame: str, stated: str) -> str:
    """The raw group of an image by the source's rule; never published as it is.

    Args:
        spec: The source.
        item: The raw file.
        frame: The frame inside it.
        stated: What the file itself says (DICOM).
    """
    rule = spec.layout.rules[item.part].grouping or spec.grouping
    if said := item.said_of(frame).group:
        return said
    if rule.by == "none":
        return f"{item.raw_path}#{frame}"
    if rule.by == "folder":
        return item.inner_path.rpartition("/")[0] or "."
    if rule.by == "path":
        found = re.search(rule.pattern, item.inner_path)
        if found:
            return "\0".join(part or "" for part in (found.groups() or (found[0],)))
    if rule.by == "file" and item.place is not None and not item.place.alone:
        return f"series\0{item.place.series}"
    return stated if rule.by == "dicom" and stated else item.raw_path
