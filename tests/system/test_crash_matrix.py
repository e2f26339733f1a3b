"""A daemon that kills itself at each point of a checkpoint's life, and one that goes on: nothing must show.

`make crash-matrix` runs every point at its first, third and a later hit, with one and with four shards, over each
store; the short form takes each point once, the stores in turn. Input and outputs are files: they have marks and tails
like topics, and need no broker. Four shards are two wide and two narrow ones; one shard is either in turn.
"""

from __future__ import annotations

import itertools
import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import pytest

from detector.records import Shard
from tests.system.conftest import say
from tests.system.crashes import POINTS, crash_at
from tests.system.examine import examine, lineage
from tests.system.feed import CALM, Feed
from tests.system.site import FileSite, Golden, file_site, shard_of

pytestmark = pytest.mark.system

IS_LONG = "LONG" in os.environ
STORES = ("dir", "kafka", "object")
STREAMS = 12
TICKS = 300


def cases() -> Iterator[tuple[str, str, int, int]]:
    """Point, store, shards, hit; a hit of 0 stands for one that the seed picks."""
    if IS_LONG:
        yield from itertools.product(POINTS, STORES, (1, 4), (1, 3, 0))
    else:
        shards, hits = itertools.cycle((4, 1)), itertools.cycle((3, 1, 0))
        yield from zip(POINTS, itertools.cycle(STORES), shards, hits, strict=False)


@dataclass
class Plant:
    """Input files, and what must come of them; made once."""

    inputs: Path
    feeds: dict[str, Feed]
    golden: dict[Shard, Golden]

    def calm(self, site: FileSite) -> dict[Shard, int]:
        """How many records of each shard come before its first fault."""
        return {records.shard: len(records) * CALM // TICKS for _, records in site.records()}


@pytest.fixture(scope="module")
def counts() -> Iterator[Counter[str]]:
    """What all cases together did; alerts must have been held back, or nothing was shown of suppression."""
    found: Counter[str] = Counter()
    yield found
    say(f"crash matrix: {dict(found)}")
    assert found["alerts held back"] > found["crashes"]


@cache
def plant(folder: Path, seed: int, kinds: tuple[str, ...]) -> Plant:
    """Of these kinds, wide or narrow; two shards of each where there are two."""
    feeds = {}
    for kind in kinds:
        feeds[kind] = Feed(seed, partitions=len(kinds), streams=STREAMS // len(kinds), narrow=kind == "narrow")
        feeds[kind].take_ticks(TICKS)
    inputs = folder / "-".join(kinds)
    return Plant(inputs, feeds, file_site(inputs, inputs / "golden", feeds).golden())


async def run_crashed(site: FileSite, point: str, hit: int, calm: dict[Shard, int]) -> int:
    """Run until the crash, which must come, and once more to the end; returns how many alerts came twice but for us."""
    marker = site.folder / "reached"
    crashed = site.start(partial(crash_at, point, hit, calm, marker))
    try:
        await crashed.until_ended(-9)
        assert marker.exists(), crashed.log()
    finally:
        crashed.end()
    reached = await site.reached()
    held_back = sum(json.loads(alert)["source"]["offset"] >= reached[shard_of(alert)] for alert in await site.alerts())
    sound = site.start()
    try:
        await sound.until_ended()
    finally:
        sound.end()
    return held_back


@pytest.mark.parametrize(("point", "store", "shards", "hit"), list(cases()), indirect=["store"])
async def test_a_crash_there_changes_nothing(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    counts: Counter[str],
    point: str,
    store: dict[str, object],
    shards: int,
    hit: int,
) -> None:
    """Alerts to the byte and once, scores to the bit, memory to the byte, and a chain of manifests without a gap."""
    rng = random.Random(f"{seed} {point} {shards}")
    hit = hit or rng.randint(4, 6)
    kinds = (rng.choice(("wide", "narrow")),) if shards == 1 else ("wide", "narrow")
    given = plant(tmp_path_factory.getbasetemp(), seed, kinds)
    site = file_site(given.inputs, tmp_path, given.feeds, store=store, every_s=0.001)
    held_back = await run_crashed(site, point, hit, given.calm(site))
    assert await examine(site, given.golden) == Counter()
    proof = lineage(site)
    assert proof.faults == []
    counts.update({"crashes": 1, "alerts held back": held_back} | proof.counts)
    say(f"{point}, hit {hit}, {shards} shards, {store.get('type', 'dir')}: {held_back} alerts held back")
