"""The daemon as a process of its own, started in a fraction of a second and killed at will.

A fork server imports the daemon once; each start is a fork of it, which is why a test can afford hundreds. What is
broken or watched in a daemon is put in from outside by `tampers`: functions that run in the new process before
`tidewarden run` does. The daemon itself has no hooks for tests.
"""

from __future__ import annotations

import asyncio
import functools
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).parents[2]
DEADLINE_S = 120.0  # for what takes seconds; a crowded machine

Tamper = Callable[[], None]
"""Changes a daemon from outside; a function of a module, or a `partial` of one."""


class Daemon:
    """A running `tidewarden run`; `log` is its own file."""

    def __init__(self, config: Path, log: Path, tampers: Sequence[Tamper] = ()) -> None:
        self._log = log
        self._process = _forks().Process(target=_main, args=(config, log, list(tampers)), daemon=True)
        self._process.start()

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.is_alive()

    @property
    def exit_code(self) -> int | None:
        """None while it runs; minus the signal that ended it."""
        return self._process.exitcode

    def log(self) -> str:
        """What it has written."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def kill(self) -> None:
        """SIGKILL; it must have been alive."""
        assert self.is_alive, f"the daemon ended by itself, exit code {self.exit_code}:\n{self.log()}"
        self._process.kill()
        self._process.join()

    def freeze(self) -> None:
        """SIGSTOP: it does not know that time goes on."""
        os.kill(self.pid, signal.SIGSTOP)

    def wake(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    async def drain(self) -> None:
        """SIGTERM; it must end by itself, in order."""
        self._process.terminate()
        await self.until_ended()

    async def until_ended(self, code: int = 0) -> None:
        """It must end by itself, with this exit code."""
        await asyncio.to_thread(self._process.join, DEADLINE_S)
        assert self.exit_code == code, f"exit code {self.exit_code}, expected {code}:\n{self.log()}"

    def end(self) -> None:
        """Whatever happened."""
        if self.is_alive:
            self._process.kill()
        self._process.join()


async def until(condition: Callable[[], bool], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Wait until it holds; `what` is told where it does not come to be."""
    end_s = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end_s, f"not within {deadline_s:.0f} s: {what}"
        await asyncio.sleep(0.02)


@functools.cache
def _forks() -> multiprocessing.context.ForkServerContext:
    """The fork server: one thread, everything imported, nothing started."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["detector.app", "detector.commands.run", "tests.system.crashes"])
    with mock.patch.dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT)):
        multiprocessing.forkserver.ensure_running()
    return context


def _main(config: Path, log: Path, tampers: Sequence[Tamper]) -> None:
    """What the new process does."""
    from detector.cli import main

    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    for tamper in tampers:
        tamper()
    main(["run", "-c", str(config)])
