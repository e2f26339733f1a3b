"""Every error that Tidewarden raises on purpose, as one tree.

    TidewardenError
      ConfigurationError     a setting is wrong: exit code 2, nothing was started
      BundleError            a bundle cannot be read, is damaged or does not fit
      InputError             a file handed to `score` or `train` cannot be used
      SourceError            an input edge failed
      SinkError              an output edge failed
      CheckpointError        a store failed, or a checkpoint cannot be used
        CorruptCheckpointError   a checksum or a shape is wrong
        NoCheckpointError    there is none, and the operator said that there must be one
        LineageError         the checkpoint belongs to another bundle, topic or configuration
        FencedError          another process has claimed the shard
        DataLostError        the source no longer has the records that follow the checkpoint
        PartitionsChangedError   keys stand in other partitions than the memory of their streams
      CannotVerifyError      a range of the past cannot be computed again: exit code 2, neither equal nor different

Bad *data* is never an error: it is a `Reject` (records.py) with a reason and a counter. A message always reads
*where: what: expected, got*, and ends with what the operator can do where there is something to do.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar


class TidewardenError(Exception):
    """Root of the tree; `where` names the file, setting or shard, `what` the thing in it that is wrong."""

    exit_code: ClassVar[int] = 1
    retriable: ClassVar[bool] = False
    """Whether trying the same thing again can help."""

    def __init__(
        self, where: object, what: str, *, expected: object = None, got: object = None, hint: str | None = None
    ) -> None:
        self.where, self.what, self.expected, self.got, self.hint = str(where), what, expected, got, hint
        super().__init__(self._message())

    def __reduce__(self) -> tuple[Any, ...]:
        """Cross from process to process whole; pickle alone would call the class with the message."""
        expected, got = (None if word is None else str(word) for word in (self.expected, self.got))
        return partial(type(self), expected=expected, got=got, hint=self.hint), (self.where, self.what)

    def _message(self) -> str:
        text = f"{self.where}: {self.what}"
        if self.expected is not None:
            text += f": expected {self.expected}"
        if self.got is not None:
            text += f", got {self.got}"
        if self.hint is not None:
            text += f" ({self.hint})"
        return text


class ConfigurationError(TidewardenError):
    """A setting is wrong; correct the file or the variable that the message names."""

    exit_code = 2


class BundleError(TidewardenError):
    """A bundle cannot be used; export it again, or name the right file."""


class InputError(TidewardenError):
    """A data file cannot be used; the message names file, line and column."""


class SourceError(TidewardenError):
    """An input edge failed."""

    retriable = True


class SinkError(TidewardenError):
    """An output edge failed; nothing that it had not acknowledged counts as delivered."""

    retriable = True


class CheckpointError(TidewardenError):
    """A checkpoint store failed."""

    retriable = True


class CorruptCheckpointError(CheckpointError):
    """A file of a checkpoint is damaged; the store falls back to the manifest before it and says so."""

    retriable = False


class NoCheckpointError(CheckpointError):
    """A shard has no checkpoint, and `start` is fail."""

    retriable = False


class LineageError(CheckpointError):
    """The checkpoint belongs to another bundle, topic or configuration than the one that is running."""

    retriable = False


class FencedError(CheckpointError):
    """Another process has claimed the shard since; this one must stop writing. Run one replica per shard."""

    retriable = False


class DataLostError(CheckpointError):
    """The source no longer has the records that follow the checkpoint; what they would have said is lost."""

    retriable = False


class PartitionsChangedError(CheckpointError):
    """The topic has another number of partitions than at the checkpoint: most keys moved away from their memory."""

    retriable = False


class CannotVerifyError(TidewardenError):
    """A range of the past cannot be computed again, so that nothing is known of it; the message says why."""

    exit_code = 2
