"""Several processes that train as one.

    torchrun --nproc-per-node 2 -m detector train -c pumps.yaml

Each takes some of the rows of every batch, and torch's DistributedDataParallel puts the gradients together: the steps
are those of one process that sees all rows. Every process reads the data; only the first writes a run folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from training.spans import Span


@dataclass(frozen=True, slots=True)
class Team:
    """The processes that train together; `ALONE` is one."""

    rank: int
    """Which of them this one is; 0 is the first."""
    size: int

    def share(self, module: nn.Module) -> nn.Module:
        """Let a module's gradients be the mean over all processes."""
        return module if self.size == 1 else DistributedDataParallel(module, broadcast_buffers=False)

    def rows(self, batch: Span) -> Span:
        """This process's rows of a batch; one that does not count where there are too few for all."""
        if self.size == 1:
            return batch
        mine = list(range(self.rank, len(batch.target), self.size))
        if mine:
            return batch.rows(mine)
        spare = batch.rows([0])
        return replace(spare, counted=torch.zeros_like(spare.counted))

    def told(self, what: Path | None) -> Path:
        """What the first process says, by all of them."""
        said = [what]
        if self.size > 1:
            distributed.broadcast_object_list(said)
        if said[0] is None:
            raise ValueError("the first process has to say something")
        return said[0]

    def total(self, number: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.size > 1:
            distributed.all_reduce(number)
        return number


ALONE = Team(0, 1)


@contextmanager
def team() -> Iterator[Team]:
    """Join the processes that torchrun started; alone where it did not."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    distributed.init_process_group("gloo")
    try:
        yield Team(distributed.get_rank(), size)
    finally:
        distributed.destroy_process_group()


def is_first() -> bool:
    """Whether this process is the first of those that torchrun started, or the only one."""
    return os.environ.get("RANK", "0") == "0"
