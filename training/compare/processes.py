"""A process for each candidate, a few at a time: one that dies, out of memory for one, costs no other.

After each epoch a process says over its pipe how far it is, and hears whether to give up; in the end it leaves its
finding in the folder. Ctrl-C reaches the process that started them alone; that one ends the others.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import NamedTuple, Protocol

from msgspec.structs import replace as changed

from detector.errors import TidewardenError
from training.compare.candidate import Pace, Task, blank, examine
from training.compare.finding import Finding, forget, recall, save

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Judge(Protocol):
    """Hears how far candidates are."""

    def __call__(self, task: Task, pace: Pace) -> bool:
        """Whether to give the candidate up."""
        ...


class _Running(NamedTuple):
    task: Task
    process: BaseProcess
    pipe: Connection


def spread(tasks: Iterator[Task], jobs: int, judge: Judge) -> Iterator[Finding]:
    """Examine candidates in processes of their own.

    Args:
        tasks: Asked for the next one when a process is free.
        jobs: Most processes at a time.
        judge: Asked after each epoch of each candidate.

    Yields:
        What came of each, as it ends.
    """
    running: list[_Running] = []
    try:
        while _fill(running, tasks, jobs):
            speaking = wait([each.pipe for each in running])
            for each in [each for each in running if each.pipe in speaking]:
                if not _hear(each, judge):
                    running.remove(each)
                    yield _left_by(each)
    finally:
        for each in running:
            each.process.terminate()
            each.process.join()


def _fill(running: list[_Running], tasks: Iterator[Task], jobs: int) -> bool:
    """Start what there is room for; whether anything runs."""
    while len(running) < jobs and (task := next(tasks, None)):
        running.append(_start(task))
    return bool(running)


def _start(task: Task) -> _Running:
    forget(task.folder, task.number)
    context = multiprocessing.get_context("spawn")  # a fork would copy the locks of this process's threads
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(task, there), daemon=True)
    process.start()
    there.close()  # else its end could not be heard
    return _Running(task, process, here)


def _hear(each: _Running, judge: Judge) -> bool:
    """Answer the next word of a process; False once it is gone."""
    try:
        pace: Pace = each.pipe.recv()
        each.pipe.send(judge(each.task, pace))
    except (EOFError, ConnectionError):
        return False
    return True


def _left_by(each: _Running) -> Finding:
    """The finding of a process that ended; where it died, how."""
    each.process.join()
    if (finding := recall(each.task.folder, each.task.number)) is not None:
        return finding
    code = each.process.exitcode or 0
    how = f"signal {-code}, most often out of memory" if code < 0 else f"exit code {code}"
    finding = changed(blank(each.task), reason=f"its process died: {how}")
    save(each.task.folder, finding)
    return finding


def _work(task: Task, pipe: Connection) -> None:
    """All that a process does: whatever goes wrong with a candidate is its finding."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(dict.fromkeys(_THREADS, str(task.settings.fit.threads)))

    def ask(pace: Pace) -> bool:
        pipe.send(pace)
        answer: bool = pipe.recv()
        return answer

    try:
        finding = examine(task, ask)
    except TidewardenError as error:
        finding = changed(blank(task), reason=str(error))
    except Exception as error:  # whatever a candidate's arithmetic comes upon
        finding = changed(blank(task), reason=f"{type(error).__name__}: {error}")
    save(task.folder, finding)
