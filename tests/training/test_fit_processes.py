"""Several processes train as one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch

from tests.training.together import losses
from training.fit.processes import Team
from training.spans import Span

ROOT = Path(__file__).parents[2]


def test_two_processes_train_like_one(tmp_path: Path) -> None:
    """Two processes under torchrun, over gloo: their losses and gradients are those of one, in each epoch."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    command += ["--nproc-per-node", "2", "-m", "tests.training.together", str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode == 0, ended.stderr
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    for together, alone in zip(first, losses(), strict=True):
        assert together == pytest.approx(alone, rel=1e-4)


def test_rows_are_shared_out() -> None:
    """Every row that counts is with exactly one process; a process without one has a row that does not count."""
    for rows in (1, 2, 5):
        numbers = torch.arange(rows).view(rows, 1, 1).float()
        batch = Span(*(numbers[..., None],) * 2, *(numbers,) * 2, torch.ones(rows, 1, 1, dtype=torch.bool))
        batch = Span(*(getattr(batch, name) for name in batch.__slots__[:5]), tuple(map(str, range(rows))))
        parts = [Team(rank, 3).rows(batch) for rank in range(3)]
        assert all(len(part.target) for part in parts)
        assert sorted(int(one) for part in parts for one in part.target[part.counted]) == list(range(rows))
