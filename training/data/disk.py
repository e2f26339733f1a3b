"""Arrays that lie in a file instead of memory, and are read when they are asked for.

A part is read with `pread` rather than mapped: what was read is gone from memory as soon as nobody holds it, however
much the machine has. The file has no name, so that nothing is left of it when the process ends in whatever way.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from detector.errors import ConfigurationError


class Extent(NamedTuple):
    """Rows that lie together."""

    offset: int
    """Bytes from the beginning of the file."""
    rows: int


class Disk:
    """A file that only grows.

    Args:
        folder: Where there is room for it.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._where, self._end = folder, 0
        self._file, name = tempfile.mkstemp(dir=folder)
        os.unlink(name)
        weakref.finalize(self, os.close, self._file)  # when the last array that lies in it is gone

    def append(self, array: NDArray[np.generic]) -> Extent:
        """Write an array behind what is there.

        Raises:
            ConfigurationError: the disk is full.
        """
        extent, view = Extent(self._end, len(array)), _bytes(np.ascontiguousarray(array))
        try:
            while view:
                view = view[os.write(self._file, view) :]
        except OSError as error:
            written = f"{self._end / 1e9:.1f} GB are written"
            hint = "name an output folder with room, or a higher data.memory_mb"
            raise ConfigurationError(
                self._where, "history does not fit here", expected="room for it", got=f"{error}; {written}", hint=hint
            ) from error
        self._end += array.nbytes
        return extent

    def read(self, offset: int, into: NDArray[np.generic]) -> None:
        """Fill a contiguous array with what stands at an offset."""
        view = _bytes(into)
        while view:
            count = os.preadv(self._file, [view], offset)
            view, offset = view[count:], offset + count


def _bytes(array: NDArray[np.generic]) -> memoryview:
    return memoryview(array).cast("B") if array.size else memoryview(b"")


class Stored:
    """An array on disk: `stored[a:b]` reads some of its rows, `np.asarray(stored)` all of them.

    Args:
        disk: Where it lies.
        extents: Its rows, in order.
        row_shape: Of a row, () or (C,).
        dtype: Of a cell.
    """

    def __init__(self, disk: Disk, extents: Sequence[Extent], row_shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self._disk, self._extents, self.dtype = disk, list(extents), np.dtype(dtype)
        self.shape = (sum(extent.rows for extent in extents), *row_shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        return self._rows(0, len(self)).astype(dtype or self.dtype, copy=False)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice) and key.step in (None, 1):
            return self._rows(*key.indices(len(self))[:2])
        if isinstance(key, int):
            at = range(len(self))[key]
            return self._rows(at, at + 1)[0]
        return np.asarray(self)[key]

    def copy(self) -> NDArray[Any]:
        """All of it, in memory."""
        return np.asarray(self)

    def __reduce__(self) -> tuple[Any, ...]:
        """To another process it goes as the array that it stands for."""
        return np.asarray(self).__reduce__()  # type: ignore[return-value]  # numpy says str, too

    def _rows(self, start: int, stop: int) -> NDArray[Any]:
        found = np.empty((max(0, stop - start), *self.shape[1:]), self.dtype)
        row_bytes, first = self.dtype.itemsize * int(np.prod(self.shape[1:])), 0
        for offset, rows in self._extents:
            low, high = max(start, first), min(stop, first + rows)
            if low < high:
                self._disk.read(offset + (low - first) * row_bytes, found[low - start : high - start])
            first += rows
        return found
