"""Cards say what is in a dataset, name each unknown licence, and are read by the programs that they are for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from infra.cli import main
from infra.reports.cards.croissant import croissant
from infra.reports.cards.facts import gather
from infra.reports.cards.hugging_face import hugging_face
from infra.reports.cards.markdown import markdown
from ingest.job.run import run_job
from ingest.withdrawal.choose import Asked
from ingest.withdrawal.withdraw import withdraw
from shards.dataset import Dataset
from shards.dataset.summary import summarise
from shards.subset import Lock, Selection, create, materialize
from tests.ingest.material import encoded, photo, public_spec, write_folder
from tests.ingest.withdrawal.material import SECRET, group_of, take_in, write_patients


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two sources, one with a licence, a JPEG and a duplicate; the other without a licence."""
    place = tmp_path_factory.mktemp("cards")
    data = str(place / "data")
    known = {f"{n}.png": encoded(photo(n)) for n in range(6)} | {"copy.png": encoded(photo(0))}
    known["seven.jpg"] = encoded(photo(7), "JPEG")
    raw = write_folder(place / "known", known)
    other = write_folder(place / "other", {f"{n}.png": encoded(photo(100 + n)) for n in range(4)})
    words = ["--deidentified", "--workers", "0", "--modality"]
    assert main(["ingest", "known", str(raw), data, *words, "CT", "--licence", "CC-BY-4.0"]) == 0
    assert main(["ingest", "other", str(other), data, *words, "US"]) == 0
    return data


@pytest.mark.slow
def test_markdown_counts_and_names_each_unknown(url: str) -> None:
    text = markdown(gather(url))
    assert "A dataset of 11 two-dimensional biomedical images of 2 sources (CT 7, US 4)." in text
    assert "| known | CT | 7 | 7 |" in text
    assert "- **any use** (commercial use, changes and redistribution are allowed): known (CC-BY-4.0: 7)" in text
    assert "- other: 4 images without a known licence; ask at where they came from" in text
    assert "| known | duplicate | 1 |" in text
    assert "1 duplicate" in text
    assert "Basic Application" in text or "BLAKE2b" in text
    assert "version 3 of the biovfm ingest pipeline" in text


def test_a_lock_s_card_counts_the_lock(url: str, tmp_path: Path) -> None:
    path = tmp_path / "some.lock.yaml"
    create(Dataset.open(url), Selection(count=2)).write(path)
    facts = gather(path)
    assert (facts.samples, facts.others, facts.title) == (4, 7, "some")
    assert "The shards hold 7 further images" in markdown(facts)
    assert facts.lock is not None
    assert facts.lock.digest in markdown(facts)
    head = yaml.safe_load(hugging_face(facts).split("---\n")[1])
    assert head["configs"][0]["data_files"][0]["path"] == list(facts.shards.paths)


@pytest.mark.slow
def test_the_command_writes_each_format(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("croissant", "hf", "md"):
        out = tmp_path / name
        assert main(["card", url, "--format", name, "--out", str(out)]) == 0
        assert out.stat().st_size > 500
        assert "note: other: 4 images without a known licence" in capsys.readouterr().err
    assert main(["card", url]) == 0
    assert capsys.readouterr().out == (tmp_path / "md").read_text()


def test_croissant_has_the_responsible_fields(url: str) -> None:
    document = json.loads(croissant(gather(url)))
    assert document["rai:personalSensitiveInformation"][0].startswith("Pixels and an allow-list")
    assert "duplicate 1" in document["rai:dataCollectionMissingData"]
    assert document["license"] == ["CC-BY-4.0", "unknown"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_croissant_is_valid_for_its_own_library(url: str, tmp_path: Path) -> None:
    mlcroissant = pytest.importorskip("mlcroissant")
    path = tmp_path / "croissant.json"
    path.write_text(croissant(gather(url)))
    document = mlcroissant.Dataset(jsonld=str(path))
    assert document.metadata.name == "data"
    assert document.metadata.ctx.issues.errors == set()
    assert document.metadata.data_biases
    (shards,) = (one for one in document.metadata.distribution if one.uuid == "shards")
    assert sorted(shards.includes) == sorted(str(path.relative_to(url)) for path in Path(url, "shards").rglob("*.tar"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_datasets_loads_the_shards_by_the_card(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (Path(url) / "README.md").write_text(hugging_face(gather(url)))
    loaded = datasets.load_dataset(url, split="train", cache_dir=str(tmp_path / "cache"))
    assert len(loaded) == 11
    assert sorted({row["json"]["source"] for row in loaded}) == ["known", "other"]
    assert sum(row["png"] is not None or row["jpg"] is not None for row in loaded) == 11
    row = loaded[0]
    image = row["png"] or row["jpg"]
    assert (image.width, image.height) == (row["json"]["width"], row["json"]["height"])
    assert len(datasets.load_dataset(url, "us", split="train", cache_dir=str(tmp_path / "cache"))) == 4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_no_card_names_a_shard_of_an_older_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    data = str(tmp_path / "d")
    take_in(write_patients(tmp_path / "raw"), data)
    dataset = Dataset.open(data)
    gone = dataset.query("SELECT key FROM samples WHERE group_id = ?", params=[group_of(dataset, "patient-1")])
    withdraw(dataset, Asked(groups=("patient-1",)), SECRET)
    left = set(dataset.query("SELECT key FROM samples")["key"].to_pylist())
    assert main(["card", data, "--format", "hf", "--out", str(tmp_path / "d" / "README.md")]) == 0
    assert "1 further shard of older versions" in capsys.readouterr().err
    for name in ("default", "fundus"):
        loaded = datasets.load_dataset(data, name, split="train", cache_dir=str(tmp_path / "cache"))
        assert sorted(loaded["__key__"]) == sorted(left)
    assert left.isdisjoint(gone["key"].to_pylist())
    (shard,) = set(dataset.query("SELECT shard FROM samples")["shard"].to_pylist())
    (_, shards, *_) = json.loads(croissant(gather(data)))["distribution"]
    assert shards["includes"] == [shard]


@pytest.mark.slow
def test_the_card_of_a_copy_says_what_that_of_its_lock_says(tmp_path: Path) -> None:
    data, copy, path = str(tmp_path / "data"), tmp_path / "copy", tmp_path / "some.lock.yaml"
    pictures = {f"{n}.png": encoded(photo(n)) for n in range(3)}
    raw = write_folder(tmp_path / "raw", pictures | {"same.png": encoded(photo(0))})
    run_job(public_spec("site", "US"), str(raw), data, workers=0)
    create(Dataset.open(data), Selection()).write(path)
    run_job(public_spec("site", "CT"), str(raw), data, workers=0)
    materialize(Lock.read(path), str(copy))
    cards = [gather(path), gather(copy)]
    for facts in cards:
        assert [one.rejects for one in facts.sources] == [{"duplicate": 1}]
        assert "Left out in the ingest jobs of these sources: 1 duplicate." in markdown(facts)
        assert "## De-identification\n\nPixels and an allow-list of technical attributes" in markdown(facts)
    assert cards[0].sources == cards[1].sources
    assert [one.rejects for one in gather(data).sources] == [{"duplicate": 5}]


@pytest.mark.slow
def test_groups_are_counted_per_modality(tmp_path: Path) -> None:
    names = ["ct/a/1", "ct/a/2", "ct/b/1", "us/a/1"]
    raw = write_folder(tmp_path / "raw", {f"{name}.png": encoded(photo(n)) for n, name in enumerate(names)})
    spec = public_spec(
        *("mixed", ("CT", "US")),
        grouping={"by": "path", "pattern": "^../([^/]+)/"},
        modality_rule={"by": "path", "patterns": {"CT": "^ct/", "US": "^us/"}},
    )
    run_job(spec, str(raw), str(tmp_path / "d"), workers=0)
    text = markdown(gather(tmp_path / "d"))
    assert "| mixed | CT | 3 | 2 |" in text
    assert "| mixed | US | 1 | 1 |" in text


@pytest.mark.slow
def test_each_licence_of_a_source_has_its_class_and_count(tmp_path: Path) -> None:
    terms = ["CC-BY-4.0"] * 3 + ["CC-BY-NC-4.0"] * 2 + ["CC-BY (research only)"]
    files = {f"{n}.png": encoded(photo(n)) for n in range(6)}
    rows = "".join(f"{n}.png,{licence}\n" for n, licence in enumerate(terms))
    raw = write_folder(tmp_path / "raw", {**files, "table.csv": f"file,terms\n{rows}".encode()})
    table = {"path": "table.csv", "key": "file", "licence": "terms"}
    spec = public_spec("mixed", layout={"tables": [table]})
    run_job(spec, str(raw), str(tmp_path / "d"), workers=0)
    facts = gather(tmp_path / "d")
    text = markdown(facts)
    assert "- **any use** (commercial use, changes and redistribution are allowed): mixed (CC-BY-4.0: 3)\n" in text
    assert "- **non-commercial** (redistribution is allowed, commercial use is not): mixed (CC-BY-NC-4.0: 2)\n" in text
    assert "- **unknown** (nothing is known; ask before use): mixed (CC-BY (research only): 1)\n" in text
    assert "- mixed: 1 images under 'CC-BY (research only)', of which it is not known what it allows; ask at" in text
    assert yaml.safe_load(hugging_face(facts).split("---\n")[1])["license"] == "other"
    by_source = summarise(Dataset.open(str(tmp_path / "d"))).by_source
    assert [(row["licence"], row["samples"]) for row in by_source] == [
        *(("CC-BY-4.0", 3), ("CC-BY-NC-4.0", 2), ("CC-BY (research only)", 1)),
    ]
