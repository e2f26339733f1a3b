"""Work spread over processes, with one thread each, and a count of how much of it is done.

    with Crew(jobs, bar.advance) as crew:
        for result in crew.map(function, tasks):       # as each is done
            ...

`function` is called in a fresh process and reports with `advance(rows)`. With one job all of it stays in this process.
Whatever ends the block early ends the processes: what they write, they write whole or not at all.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, TypeVar

from detector.errors import TidewardenError

Task = TypeVar("Task")
Result = TypeVar("Result")
Advance = Callable[[int], None]

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_LOOK_EVERY_S = 0.2  # between two looks at the count; a bar moves smoothly

_advance: Advance = lambda _: None  # noqa: E731  (a worker's own is set when it starts)


def advance(rows: int) -> None:
    """Say that so many more rows are done; for functions that a crew calls."""
    _advance(rows)


class Crew(AbstractContextManager["Crew"]):
    """Processes that wait for work; use as a context.

    Args:
        jobs: How many.
        on_rows: Told how many more rows are done, in this process.
    """

    def __init__(self, jobs: int, on_rows: Advance = lambda _: None) -> None:
        self._jobs, self._on_rows = jobs, on_rows
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Crew:
        if self._jobs > 1:
            context = multiprocessing.get_context("spawn")  # a fork would copy this process's threads' locks
            self._count: Any = context.Value("q", 0)
            self._told = 0
            self._others = multiprocessing.active_children()
            self._pool = ProcessPoolExecutor(self._jobs, context, _start_worker, (self._count,))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is None:
            return
        if error is None:
            self._pool.shutdown(wait=True)
            return
        own = [child for child in multiprocessing.active_children() if child not in self._others]
        self._pool.shutdown(wait=False, cancel_futures=True)
        for child in own:
            child.terminate()
            child.join()

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        """Call the function with each task and give the results as they come; an exception in a worker comes out.

        Raises:
            TidewardenError: A process died.
        """
        if self._pool is None:
            yield from self._map_here(function, tasks)
            return
        running = {self._pool.submit(function, task) for task in tasks}
        while running:
            done, running = wait(running, _LOOK_EVERY_S, FIRST_COMPLETED)
            self._tell()
            for future in done:
                yield _result(future)
        self._tell()

    def _map_here(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        global _advance
        before, _advance = _advance, self._on_rows
        try:
            yield from map(function, tasks)
        finally:
            _advance = before

    def _tell(self) -> None:
        count = self._count.value
        self._on_rows(count - self._told)
        self._told = count


def _result(future: Future[Result]) -> Result:
    try:
        return future.result()
    except BrokenProcessPool as error:
        hint = "most often out of memory: use fewer --jobs; what was found so far is kept"
        raise TidewardenError("evaluate", "a process died", hint=hint) from error


def _start_worker(count: Any) -> None:
    """One thread per process, and Ctrl-C left to the process that started us."""
    global _advance
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(dict.fromkeys(_THREADS, "1"))

    def tell(rows: int) -> None:
        with count.get_lock():
            count.value += rows

    _advance = tell
