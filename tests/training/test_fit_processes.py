"""Several processes train as one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from tests.training.together import train
from training import run
from training.fit.processes import Team
from training.spans import Span

ROOT = Path(__file__).parents[2]


def test_two_processes_train_like_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes under torchrun, over gloo: one run folder, with the losses and gradients of a single process."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    command += ["--nproc-per-node", "2", "-m", "tests.training.together", str(tmp_path / "two")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode == 0, ended.stderr
    (folder,) = (tmp_path / "two").iterdir()
    monkeypatch.setattr(run, "_finish", run._finish)  # put back afterwards
    found, alone = (json.loads((one / "losses.json").read_text()) for one in (folder, train(tmp_path / "one")))
    assert np.array(found) == pytest.approx(np.array(alone), rel=1e-4)


def test_rows_are_shared_out() -> None:
    """Every row that counts is with exactly one process; a process without one has a row that does not count."""
    for rows in (1, 2, 5):
        numbers = torch.arange(rows).view(rows, 1, 1).float()
        batch = Span(*(numbers[..., None],) * 2, *(numbers,) * 2, torch.ones(rows, 1, 1, dtype=torch.bool))
        batch = Span(*(getattr(batch, name) for name in batch.__slots__[:5]), tuple(map(str, range(rows))))
        parts = [Team(rank, 3).rows(batch) for rank in range(3)]
        assert all(len(part.target) for part in parts)
        assert sorted(int(one) for part in parts for one in part.target[part.counted]) == list(range(rows))
