"""What `train` is told is checked before any data is read."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

from detector.errors import ConfigurationError
from training.settings import TrainSettings, dump, load

EXAMPLES = sorted((Path(__file__).parents[2] / "configs" / "train").glob("*.yaml"))
PLANT = "name: a\ndata: {plant: {}}\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "train.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_loads(path: Path) -> None:
    """Each configuration in configs/train is accepted."""
    assert load(path).name


def test_a_resolved_configuration_is_taken_back(tmp_path: Path) -> None:
    """What the run folder keeps is a configuration that says the same."""
    settings = load(written(tmp_path, PLANT))
    assert load(written(tmp_path, dump(settings))) == settings


@pytest.mark.parametrize(
    "data",
    [
        "{prometheus: {url: 'http://p', queries: {cpu: up}, start: 2026-10-01, end: 2026-11-01T06:00Z, step: 30s}}",
        "{kafka: {topics: [a], last: 7d, record: {stream: null, channel: tag, value: v, time_unit: ms}}}",
    ],
)
def test_a_configuration_that_asks_others_is_taken_back(tmp_path: Path, data: str) -> None:
    """Times keep their zone, and a record its shape."""
    settings = load(written(tmp_path, f"name: a\ndata: {data}\n"))
    assert load(written(tmp_path, dump(settings))) == settings


def test_overrides_reach_into_sections(tmp_path: Path) -> None:
    """--set changes a nested key, with the value read as YAML."""
    settings = load(
        written(tmp_path, PLANT), ["fit.epochs=3", "model.cell=lstm", "data.plant=null", "data.paths=[a.csv]"]
    )
    assert (settings.fit.epochs, settings.model.cell, settings.data.paths) == (3, "lstm", ["a.csv"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: a\ndata: {plant: {}}\nfit: {epoch: 3}\n", ["train.yaml:3", "fit.epoch", "did you mean epochs?"]),
        ("name: a\ndata: {plant: {}}\nfit: {epochs: many}\n", ["train.yaml:3", "fit.epochs", "integer", "'many'"]),
        ("name: a\ndata: {}\n", ["train.yaml:2", "data", "paths, prometheus, kafka, plant or synthetic"]),
        ("name: a\ndata: {plant: {}, time_zone: Mars}\n", ["data.time_zone", "Europe/Vienna"]),
        ("name: a\ndata: {plant: {}}\nmodel: {mode: some}\n", ["model.mode", "'any' or 'fixed'", "'some'"]),
        ("- a\n", ["train.yaml", "a map of settings"]),
        ("name: a\ndata: {kafka: {topics: [a], partitions: x}}\n", ["data.kafka", 'partitions such as "0-3"', "'x'"]),
        ("name: a\ndata: {prometheus: {url: p, queries: {}}}\n", ["data.prometheus.url", "http", "queries"]),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, text: str, words: list[str]) -> None:
    """The message names file, line and key, what was expected and what was found."""
    with pytest.raises(ConfigurationError) as caught:
        load(written(tmp_path, text))
    assert [word for word in words if word not in str(caught.value)] == []


@pytest.mark.parametrize("override", ["fit.epochs", "=3", "name.first=x"])
def test_a_wrong_override_is_named(tmp_path: Path, override: str) -> None:
    """--set wants key=value, and a key that can be reached."""
    with pytest.raises(ConfigurationError, match="--set"):
        load(written(tmp_path, PLANT), [override])


def test_defaults_need_only_a_name_and_data() -> None:
    """A name and data are all that must be said."""
    assert TrainSettings.model_validate({"name": "a", "data": {"paths": ["a.csv"]}}).model.mode == "any"
