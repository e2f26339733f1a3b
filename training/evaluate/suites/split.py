"""Who may be looked at: the lists of split.yaml, and which side a series is on.

A series that no list names was never tuned on, by whoever wrote them: it counts as validation.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import yaml

from training.evaluate.suites.case import Split

PATH = Path(__file__).with_name("split.yaml")


def split_of(suite: str, name: str) -> Split:
    """The side of one series."""
    return "dev" if name in _dev().get(suite, frozenset()) else "validation"


@lru_cache(maxsize=1)
def _dev() -> dict[str, frozenset[str]]:
    lists = yaml.safe_load(PATH.read_text(encoding="utf-8"))["dev"]
    return {suite: frozenset(map(str, names or ())) for suite, names in lists.items()}
