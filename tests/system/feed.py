"""An endless plant of pumps, the same for the same seed: levels with faults, late, repeated and broken records.

Wide, a record has all channels of a sample; narrow, one of them. A feed remembers what was taken of it: that is what
the engine in one piece is given in the end, so nobody has to know beforehand how long a test will last.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from itertools import islice, zip_longest

from tests.system.narrow import exploded

CALM = 152  # ticks before the first fault of a stream; its scale is settled by then
_BLOCK = 8  # ticks that are made, and strewn, at once
_EPOCH = 1_600_000_000
_BROKEN = (b"{", b"\xff\xfe", b'{"stream": "pump"}')


class Feed:
    """Records of `partitions` partitions, in the order in which they come."""

    def __init__(self, seed: int, *, partitions: int = 4, streams: int = 60, narrow: bool = False) -> None:
        self.narrow = narrow
        self.taken: list[list[bytes]] = [[] for _ in range(partitions)]
        """Per partition what was taken so far."""
        self._streams = streams
        self._records = self._endless(random.Random(f"{seed} {narrow}"))

    def take(self, count: int) -> list[tuple[int, bytes]]:
        """The next records, each with its partition."""
        found = list(islice(self._records, count))
        for partition, value in found:
            self.taken[partition].append(value)
        return found

    def take_ticks(self, ticks: int) -> list[tuple[int, bytes]]:
        """About as many records as all streams give in so many ticks."""
        return self.take(ticks * self._streams * (2 if self.narrow else 1))

    def __len__(self) -> int:
        return sum(map(len, self.taken))

    def _endless(self, rng: random.Random) -> Iterator[tuple[int, bytes]]:
        pumps = [_pump(rng, number) for number in range(self._streams)]
        while True:
            block = self._block(pumps, rng)
            for abreast in zip_longest(*([exploded(records, rng) for records in block] if self.narrow else block)):
                yield from ((partition, value) for partition, value in enumerate(abreast) if value is not None)

    def _block(self, pumps: list[Iterator[bytes]], rng: random.Random) -> list[list[bytes]]:
        """A few ticks of every stream, by partition, with what goes wrong on the way."""
        block: list[list[bytes]] = [[] for _ in self.taken]
        for _ in range(_BLOCK):
            for number in rng.sample(range(len(pumps)), len(pumps)):
                records, record = block[number % len(block)], next(pumps[number])
                records.append(record)
                if rng.random() < 0.02:
                    records.append(rng.choice(records[-60:]))  # late, or doubled
                if rng.random() < 0.01:
                    records.append(rng.choice([*_BROKEN, record[:-9]]))
        return block


def _pump(rng: random.Random, number: int) -> Iterator[bytes]:
    """A stream's samples: noise about a level, with faults that shift it."""
    level, until, tick = 50.0, 0, 0
    while True:
        if tick > CALM and tick >= until and rng.random() < 0.02:
            until = tick + rng.randrange(5, 40)
            level = 50.0 + rng.choice([-1, 1]) * rng.uniform(20, 60)
        elif tick == until:
            level = 50.0
        flow = None if rng.random() < 0.03 else level + rng.gauss(0, 1)
        sample = {"flow": flow, "heat": 20 + rng.gauss(0, 0.2)}
        record = {"stream": f"pump-{number:02d}", "time": _EPOCH + tick * 10, "values": sample}
        yield json.dumps(record).encode()
        tick += 1
