"""Which errors are the machine's or the network's, and which the file's."""

from __future__ import annotations

import errno
import urllib.error
from email.message import Message
from pathlib import Path

import pytest

from ingest.raw.faults import fault_of
from ingest.raw.items import RejectError
from shards.errors import MachineError, UnavailableError


def caught(error: BaseException, *, wrapped: bool = False) -> BaseException:
    """The error as a reader hands it on: itself, or as the cause of a reject."""
    if not wrapped:
        return error
    try:
        raise RejectError("unreadable", type(error).__name__) from error
    except RejectError as outer:
        return outer


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE, errno.ECONNRESET, errno.EUCLEAN])
def test_what_cannot_be_read_now_is_unavailable(number: int, wrapped: bool) -> None:
    fault = fault_of(caught(OSError(number, "x", "/secret/name.png"), wrapped=wrapped))
    assert isinstance(fault, UnavailableError)
    assert fault.message == errno.errorcode[number]
    assert "secret" not in str(fault)


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENOMEM])
def test_what_this_machine_lacks_is_its_own_error(number: int, wrapped: bool) -> None:
    fault = fault_of(caught(OSError(number, "x"), wrapped=wrapped))
    assert isinstance(fault, MachineError)
    assert errno.errorcode[number] in str(fault)


def test_no_memory_is_the_machines() -> None:
    assert isinstance(fault_of(caught(MemoryError(), wrapped=True)), MachineError)


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "x"),
        IsADirectoryError(errno.EISDIR, "x"),
        OSError("broken data stream when reading image file"),
        ValueError("x"),
        EOFError(),
        KeyError("member"),
        RejectError("blank"),
    ],
)
def test_what_a_broken_or_missing_file_raises_is_no_fault(error: BaseException) -> None:
    assert fault_of(caught(error)) is None


@pytest.mark.parametrize(("status", "pending"), [(401, True), (403, True), (429, True), (503, True), (404, False)])
def test_the_status_of_a_server_decides(status: int, pending: bool) -> None:
    error = urllib.error.HTTPError("http://host/x?token=abc", status, "no", Message(), None)
    fault = fault_of(caught(error, wrapped=True))
    assert isinstance(fault, UnavailableError) == pending
    assert "token" not in str(fault)


def test_client_errors_are_known_by_name() -> None:
    aiohttp = pytest.importorskip("aiohttp")
    assert isinstance(fault_of(caught(aiohttp.ServerDisconnectedError())), UnavailableError)
    assert isinstance(fault_of(caught(aiohttp.ClientPayloadError())), UnavailableError)
    assert isinstance(fault_of(caught(TimeoutError())), UnavailableError)


def test_a_fault_found_below_is_handed_on_as_it_is(tmp_path: Path) -> None:
    fault = UnavailableError("EIO")
    assert fault_of(caught(fault, wrapped=True)) is fault


def test_numbers_that_a_decoder_borrows_are_the_files() -> None:
    import av

    for number in (errno.EIO, errno.EPERM, errno.EACCES, errno.ETIMEDOUT):
        with pytest.raises(OSError, match=r"Errno") as raised:
            av.error.err_check(-number)
        assert fault_of(caught(raised.value, wrapped=True)) is None
    assert isinstance(fault_of(caught(OSError(errno.EIO, "x"), wrapped=True)), UnavailableError)


def test_a_circle_of_causes_ends() -> None:
    first, second = ValueError(), KeyError()
    first.__cause__, second.__cause__ = second, first
    assert fault_of(first) is None
