"""Where tests find public benchmark data, which is no part of the project."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def benchmark_data(name: str) -> Path:
    """Folder of one collection; without it the test is skipped with the reason."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("TIDEWARDEN_DATA", beside)) / name
    if not folder.is_dir():
        pytest.skip(f"no benchmark data at {folder}; TIDEWARDEN_DATA names the folder that holds it")
    return folder
