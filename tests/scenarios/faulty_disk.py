"""A disk that fails as it is told to: what a `DirStore` sees of the operating system, with faults put in.

    disk = FaultyDisk(folder, monkeypatch)
    disk.fault = failing(ENOSPC, "write", "manifest")       # until it is set to something else

Operations by name: open and write (of a file that is to be written), fsync (of a file), sync (of a folder), replace,
read, list, mkdir, unlink. A write that fails has written its first half, as it does on a disk that becomes full.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from detector.checkpoint.stores import dir as store_dir

Fault: TypeAlias = Callable[[str, Path], None]
"""Given an operation and a path: raises OSError, takes its time, or does nothing."""

WRITING = ("open", "write", "fsync", "sync", "replace", "mkdir", "unlink")


def healthy(_: str, __: Path) -> None:
    """Nothing is wrong."""


def failing(number: int, operations: str | Iterable[str], kind: str = "") -> Fault:
    """These operations fail, on files of this kind; a folder is of any kind."""
    wanted = {operations} if isinstance(operations, str) else set(operations)

    def fault(operation: str, path: Path) -> None:
        if operation in wanted and (operation in ("sync", "mkdir", "list") or path.name.startswith(kind)):
            raise OSError(number, os.strerror(number), str(path))

    return fault


class FaultyDisk:
    """Stands between the store and the real folder."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.fault: Fault = healthy
        self.harmed: Counter[str] = Counter()
        """Operations that failed."""
        monkeypatch.setattr(store_dir, "os", _Os(self))
        monkeypatch.setattr(store_dir, "open", self._open, raising=False)
        for name, operation in {"read_bytes": "read", "mkdir": "mkdir", "unlink": "unlink"}.items():
            monkeypatch.setattr(Path, name, self._watched(getattr(Path, name), operation))

    def reach(self, operation: str, path: Path) -> None:
        """An operation on a path begins."""
        if not path.is_relative_to(self.folder):
            return
        try:
            self.fault(operation, path)
        except OSError:
            self.harmed[operation] += 1
            raise

    def _open(self, path: Path, mode: str) -> _File:
        self.reach("open", path)
        return _File(self, path, mode)

    def _watched(self, real: Callable[..., Any], operation: str) -> Callable[..., Any]:
        def act(path: Path, *arguments: Any, **named: Any) -> Any:
            self.reach(operation, path)
            return real(path, *arguments, **named)

        return act


class _File:
    """A file that is being written."""

    def __init__(self, disk: FaultyDisk, path: Path, mode: str) -> None:
        self._disk, self._path, self._file = disk, path, path.open(mode)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def writelines(self, blocks: Iterable[Any]) -> None:
        """Write all of it, or half."""
        content = b"".join(bytes(block) for block in blocks)
        try:
            self._disk.reach("write", self._path)
        except OSError:
            self._file.write(content[: len(content) // 2])
            raise
        self._file.write(content)

    def flush(self) -> None:
        """To the operating system."""
        self._file.flush()

    def fileno(self) -> int:
        """Its descriptor."""
        return self._file.fileno()


class _Os:
    """The module `os` over a faulty disk."""

    def __init__(self, disk: FaultyDisk) -> None:
        self._disk = disk

    def open(self, path: Path, flags: int, mode: int = 0o777) -> int:
        """A claim, or a folder to be synced."""
        if flags & os.O_WRONLY:
            self._disk.reach("open", Path(path))
        return os.open(path, flags, mode)

    def fsync(self, descriptor: int) -> None:
        """Of a file or a folder."""
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        self._disk.reach("sync" if path.is_dir() else "fsync", path)
        os.fsync(descriptor)

    def replace(self, source: Path, target: Path) -> None:
        """Give a file its name."""
        self._disk.reach("replace", Path(target))
        os.replace(source, target)

    def listdir(self, folder: Path) -> list[str]:
        """What is there."""
        self._disk.reach("list", Path(folder))
        return os.listdir(folder)

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)
