"""The figures of each epoch for TensorBoard; `tensorboard --logdir runs` shows them."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from training.fit.records import Epoch

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_NAMES = {
    "loss/training": "train_loss",
    "loss/validation": "validation_loss",
    "gradient/norm_median": "gradient_norm_median",
    "gradient/norm_max": "gradient_norm_max",
    "gradient/clipped_ratio": "clipped_ratio",
    "fit/learning_rate": "learning_rate",
    "fit/seconds": "seconds",
}


class Board:
    """Writes what it is told into `tensorboard/` of a run folder; use as a context."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "tensorboard"
        self._writer: SummaryWriter | None = None

    def __enter__(self) -> Board:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()

    def __call__(self, epoch: Epoch) -> bool:
        """Write an epoch, never asking for an end; what was written of it before an interruption is no longer shown."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter  # imported on use: it takes seconds

            self._writer = SummaryWriter(str(self._folder), purge_step=epoch.epoch)
        for name, field in _NAMES.items():
            self._writer.add_scalar(name, getattr(epoch, field), epoch.epoch)
        self._writer.flush()
        return False
