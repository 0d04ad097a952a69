"""What a URL says of the file that it leads to, without what lets one read it.

Passwords, signatures and tokens stand in a URL beside the file's path. Nothing of them may stay in a dataset, and the
same file has another signature each time that its link is made.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final
from urllib.parse import unquote_plus

__all__ = ["name_in", "plain_address", "query_of", "without_secrets"]

_LINK: Final = re.compile(r"(https?://)(?:[^/?#]*@)?([^?#]*)(?:\?([^#]*))?(?:#.*)?", re.IGNORECASE | re.DOTALL)
_LOGIN: Final = re.compile(r"((?:ftps?|sftp|ssh|smb|webdavs?|hdfs)://)[^/@]*:[^/]*@", re.IGNORECASE)
_SIGNATURE: Final = frozenset({"x-amz-signature", "x-goog-signature", "x-oss-signature", "signature", "sig"})
_SIGNED: Final = re.compile(
    r"x-(?:amz|goog|oss)-.*|signature|sig|expires|policy|key-pair-id|security-token"
    r"|awsaccesskeyid|googleaccessid|ossaccesskeyid"
    r"|s[eiprtv]|spr|sip|ske|skoid|sks|skt|sktid|skv|sdd|ses"
)
"""What stands beside a signature, of S3, Google, CloudFront, Alibaba and Azure."""

_HASHED: Final = re.compile(r"query-[0-9a-f]{12}")


def without_secrets(path: str) -> str:
    """A raw path that may be kept: a URL without password and fragment, and with a hash in the place of its query.

    The hash is of what of the query is no part of a signature; where there is no such part, nothing is in its place.
    Other paths, the other links of an fsspec chain, and what this function gave stay as they are.
    """
    return _changed(path, keeps_hash=True)


def plain_address(path: str) -> str:
    """The same without the hash."""
    return _changed(path, keeps_hash=False)


def name_in(path: str) -> str:
    """The name of the file that a URL, or the first link of an fsspec chain, leads to."""
    return plain_address(path.partition("::")[0]).rpartition("/")[2]


def query_of(url: str) -> str:
    """Query and fragment of a web address, with the mark before them; empty for all others."""
    found = _LINK.fullmatch(url)
    return "" if found is None else url[found.end(2) :]


def _changed(path: str, *, keeps_hash: bool) -> str:
    if "://" not in path:
        return path
    return "::".join(_link(link, keeps_hash=keeps_hash) for link in path.split("::"))


def _link(link: str, *, keeps_hash: bool) -> str:
    found = _LINK.fullmatch(link)
    if found is None:
        return _LOGIN.sub(r"\1", link)
    kept = _hashed(found[3] or "") if keeps_hash else ""
    return f"{found[1]}{found[2]}{'?' if kept else ''}{kept}"


def _hashed(query: str) -> str:
    stated = _unsigned(query)
    if not stated or _HASHED.fullmatch(query):
        return stated
    return "query-" + hashlib.sha256(stated.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def _unsigned(query: str) -> str:
    """A query without a signature and what belongs to it."""
    parts = {part: unquote_plus(part.partition("=")[0]).lower() for part in query.split("&") if part}
    if not _SIGNATURE & set(parts.values()):
        return "&".join(parts)
    return "&".join(part for part, name in parts.items() if not _SIGNED.fullmatch(name))
