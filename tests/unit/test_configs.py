"""Example configurations are read by people first; they must be true of the code."""

from __future__ import annotations

from pathlib import Path

import pytest

from detector.errors import ConfigurationError
from detector.settings import load

_CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


def test_there_are_examples() -> None:
    """The next test would pass over an empty folder."""
    assert {path.name for path in _CONFIGS} >= {"kafka.yaml", "files.yaml", "replicas.yaml"}


@pytest.mark.parametrize("path", _CONFIGS, ids=lambda path: path.name)
def test_every_example_loads(path: Path) -> None:
    """An example is a valid configuration as it stands."""
    assert load(path).sources


@pytest.mark.parametrize("path", _CONFIGS, ids=lambda path: path.name)
def test_an_example_with_a_typing_error_does_not(path: Path, tmp_path: Path) -> None:
    """The control: the loader would have told."""
    broken = tmp_path / path.name
    broken.write_text(path.read_text().replace("sources:", "sorces:", 1))
    with pytest.raises(ConfigurationError, match="sources"):
        load(broken)
