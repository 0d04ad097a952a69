"""Index commits on object storage: many writers at once, and replies that are lost."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from infra.s3_server import Server
from shards.dataset.dataset import Dataset
from shards.errors import BiovfmError
from shards.schema import index_schema, rejects_schema
from shards.store import commit_once, storage_options
from tests.faults import Fault, FaultProxy


def one_row(job_id: str) -> pa.Table:
    blank = {field.name: "" if field.type == pa.string() else 0 for field in index_schema()}
    row = {**blank, "key": job_id, "source": "alpha", "modality": "CT", "job_id": job_id}
    return pa.Table.from_pylist([row], schema=index_schema())


def commit(dataset: Dataset, job_id: str) -> int:
    return dataset.commit(job_id=job_id, rows=one_row(job_id), rejects=rejects_schema().empty_table())


def committed(dataset: Dataset) -> list[str]:
    table = dataset.table("index")
    return [] if table is None else sorted(table.to_pyarrow_table(columns=["key"])["key"].to_pylist())


def write_at_once(url: str, *, writers: int, commits: int) -> Sequence[BaseException]:
    """Each writer opens the dataset for itself and commits one job after the other."""
    errors: list[BaseException] = []

    def write(writer: int) -> None:
        try:
            dataset = Dataset.open(url)
            for number in range(commits):
                commit(dataset, f"w{writer:02d}-c{number:02d}")
        except (BiovfmError, DeltaError, OSError) as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


@pytest.mark.s3
@pytest.mark.slow
@pytest.mark.parametrize(("writers", "commits"), [(4, 5)])
def test_writers_at_once_lose_nothing(bucket: str, writers: int, commits: int) -> None:
    dataset = Dataset.create(f"{bucket}/data")
    commit(dataset, "w-first")
    errors = write_at_once(dataset.url, writers=writers, commits=commits)
    assert errors == []
    expected = ["w-first", *(f"w{writer:02d}-c{number:02d}" for writer in range(writers) for number in range(commits))]
    assert committed(dataset) == expected
    assert sorted(job["job_id"] for job in dataset.jobs()) == expected


@pytest.mark.s3
@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("fault", [Fault.drop_reply(), Fault.cut(), Fault.answer(500, "InternalError")])
def test_a_lost_reply_to_a_commit_commits_once(
    bucket: str, s3_env: Server, monkeypatch: pytest.MonkeyPatch, fault: Fault, version: int
) -> None:
    with FaultProxy(s3_env.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        dataset = Dataset.create(f"{bucket}/data")
        for number in range(version):
            commit(dataset, f"before-{number}")
        proxy.add(fault, method="PUT", path=rf"index/_delta_log/{version:020d}\.json")
        # Where the client library takes its own success for another writer's, the repeated commit settles it.
        with contextlib.suppress(CommitFailedError):
            commit(dataset, "the-job")
        newest = commit(dataset, "the-job")
        assert committed(dataset) == [*(f"before-{number}" for number in range(version)), "the-job"]
        assert dataset.has_job("the-job")
        assert commit(dataset, "the-job") == newest


def append(url: str, job_id: str) -> None:
    transaction = CommitProperties(app_transactions=[Transaction(job_id, 1)])
    write_deltalake(
        url,
        pa.table({"key": [job_id]}),
        mode="append",
        storage_options=storage_options(url),
        commit_properties=transaction,
    )


def written(url: str, job_id: str) -> bool:
    try:
        return DeltaTable(url, storage_options=storage_options(url)).transaction_version(job_id) is not None
    except TableNotFoundError:
        return False


def keys(url: str) -> list[str]:
    table = DeltaTable(url, storage_options=storage_options(url)).to_pyarrow_table()
    return sorted(table["key"].to_pylist())


@pytest.mark.s3
@pytest.mark.parametrize("fault", [Fault.drop_reply(), Fault.answer(503, "SlowDown")])
@pytest.mark.parametrize("version", [0, 1])
def test_commit_once_settles_a_lost_reply(
    bucket: str, s3_env: Server, monkeypatch: pytest.MonkeyPatch, fault: Fault, version: int
) -> None:
    url = f"{bucket}/table"
    with FaultProxy(s3_env.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        for number in range(version):
            append(url, f"before-{number}")
        proxy.add(fault, method="PUT", path=rf"_delta_log/{version:020d}\.json")
        for _ in range(2):
            commit_once(lambda: append(url, "job"), lambda: written(url, "job"))
        assert keys(url) == [*(f"before-{number}" for number in range(version)), "job"]


@pytest.mark.s3
def test_commit_once_settles_a_table_made_by_several(bucket: str) -> None:
    url = f"{bucket}/table"
    jobs = [f"job-{number}" for number in range(6)]
    start = threading.Barrier(len(jobs))

    def write(job_id: str) -> None:
        start.wait()
        commit_once(lambda: append(url, job_id), lambda: written(url, job_id))

    with ThreadPoolExecutor(len(jobs)) as pool:
        list(pool.map(write, jobs))
    assert keys(url) == jobs
