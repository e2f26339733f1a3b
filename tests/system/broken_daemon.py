"""`tidewarden run` with one law of the checkpoint protocol broken, for the negative controls of the kill test.

    python -m tests.system.broken_daemon early-manifest -c config.yaml
    python -m tests.system.broken_daemon no-suppression -c config.yaml

The daemon itself has no hooks for this: the fault is put in from outside.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from detector.checkpoint import restore
from detector.checkpoint.format import Manifest
from detector.checkpoint.protocol import Checkpointer
from detector.cli import main
from detector.sinks.base import Sink


async def _acknowledge_never(_: Checkpointer) -> None:
    """The manifest becomes durable while alerts below it are still under way."""


async def _know_nothing(_: Manifest, __: Mapping[str, Sink]) -> dict[str, frozenset[str]]:
    """Nothing that stands on the output is recognised."""
    return {}


def break_the_law(fault: str) -> None:
    """Put the fault in."""
    if fault == "early-manifest":
        Checkpointer._acknowledge = _acknowledge_never  # type: ignore[method-assign]  # that is the fault
    elif fault == "no-suppression":
        restore._known_alerts = _know_nothing
    else:
        raise SystemExit(f"no such fault: {fault}")


if __name__ == "__main__":
    break_the_law(sys.argv.pop(1))
    sys.argv.insert(1, "run")
    main()
