"""Which predicates are taken: one deterministic expression that stays behind the tags."""

from __future__ import annotations

import pytest

from shards.dataset.dataset import Dataset
from shards.errors import ConfigError
from shards.subset import Selection, create
from tests.shards.builders import small_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return small_dataset(tmp_path_factory.mktemp("expression") / "data")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "num"),
    [
        ("shard_row % 3 = 1 -- a comment at the end", 19),
        ("regexp_matches(raw_path, '7.jpg$') OR width > 1000", 6),
        ("width >= (SELECT avg(width) FROM samples)", 60),
        ("key IN (SELECT min(key) FROM samples GROUP BY group_id, source)", 15),
        ("raw_path = (SELECT max(raw_path) FROM samples AS s WHERE s.modality = 'CT')", 1),
        ("list_sum([width, height]) = 144", 60),
    ],
)
def test_one_expression_is_evaluated_on_the_whole_table_behind_the_tags(dataset: Dataset, where: str, num: int) -> None:
    lock = create(dataset, Selection(modality=("CT",), where=where))
    assert lock.counts == {"CT": num}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("width > 3) OR (TRUE", "does not work: syntax error"),
        ("TRUE; DROP TABLE samples", "does not work"),
        ("TRUE LIMIT 5", "more than one expression"),
        ("TRUE ORDER BY key", "more than one expression"),
        ("TRUE GROUP BY key", "more than one expression"),
        ("TRUE USING SAMPLE 5", "more than one expression"),
        ("TRUE QUALIFY row_number() OVER () = 1", "more than one expression"),
        ("TRUE UNION SELECT 1", "more than one expression"),
        ("random() < 0.5", "asks for random"),
        ("uuid() > key", "asks for uuid"),
        ("now() > TIMESTAMP '2020-01-01'", "asks for now"),
        ("current_date > DATE '2020-01-01'", "asks for current_date"),
        ("LOCALTIMESTAMP > TIMESTAMP '2020-01-01'", "asks for localtimestamp"),
        ("current_setting('threads') = '2'", "asks for current_setting"),
        ("version() = 'v1'", "asks for version"),
        ("user = 'duckdb'", "asks for user"),
        ("rowid < 10", "asks for rowid"),
        ("row_number() OVER () < 10", "by their position"),
        ("key IN (SELECT key FROM samples LIMIT 10)", "by their position"),
        ("width > (SELECT avg(width) FROM samples USING SAMPLE 10%)", "by their position"),
        ("key IN (SELECT any_value(key) FROM samples GROUP BY source)", "asks for any_value"),
        ("key = (SELECT string_agg(key) FROM samples)", "asks for string_agg"),
        ("width > $1", "has a parameter"),
        ("EXISTS (SELECT 1 FROM read_text('x'))", "reads another table"),
        ("EXISTS (SELECT 1 FROM duckdb_settings())", "reads another table"),
        ("EXISTS (SELECT 1 FROM information_schema.tables)", "there is samples alone"),
        ("list_sum(range(1000000000)) > width", "makes a text or a list of any length"),
        ("len(repeat(key, 1000000000)) > width", "makes a text or a list of any length"),
        ("nonsense = 3", "does not work"),
        ("", "does not work"),
    ],
)
def test_what_is_more_or_may_change_is_refused(dataset: Dataset, where: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        create(dataset, Selection(modality=("CT",), where=where or " "))
    assert "\n" not in str(caught.value)
