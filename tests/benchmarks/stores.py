"""1 GB of rows through each store, beside the same bytes as plain files: `python -m tests.benchmarks.stores`.

Written and read as a checkpoint and a restore do it: blobs one after the other, all in one shard. Plain means: write to
a file, fsync it and its folder, and read it back from a cold page cache as far as an unprivileged process can have one.
Kafka is a single broker on loopback, S3 is moto's server in this process, which says what our side costs and nothing
about any cloud. The seconds are this process's own, which a busy machine changes less than the rates.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detector.checkpoint.base import Store, fence_name, segment_name
from detector.checkpoint.stores import make_store
from detector.records import Shard
from detector.settings import (
    CheckpointSettings,
    DirCheckpointSettings,
    KafkaCheckpointSettings,
    ObjectCheckpointSettings,
)
from tests.kafka.broker import broker

_SHARD = Shard("cluster", "sensors", 0)
_ROW = 176  # float32: what the issue asks of a restore of a million streams
_BLOB_BYTES = 128 << 20


def blobs(total: int) -> Iterator[list[bytes]]:
    """Blobs as a checkpoint writes them: names, times, rows of which a quarter is not in use."""
    rng = np.random.default_rng(1)
    streams = _BLOB_BYTES // (_ROW * 4)
    for number in range(max(1, round(total / _BLOB_BYTES))):
        rows = np.tanh(rng.standard_normal((streams, _ROW), np.float32))
        rows[:, _ROW * 3 // 4 :] = 0
        names = ",".join(f'"plant/line-{i % 40}/pump-{number}-{i}"' for i in range(streams))
        times = np.arange(streams, dtype=np.int64) * 250_000_000 + 1_700_000_000_000_000_000
        yield [names.encode(), times.tobytes(), rows.tobytes()]


class PlainFiles:
    """What any store is compared with."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def write(self, name: str, blocks: Sequence[bytes]) -> None:
        """Write and sync."""

        def act() -> None:
            with open(self._folder / name, "wb") as file:
                file.writelines(blocks)
                file.flush()
                os.fsync(file.fileno())
            descriptor = os.open(self._folder, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)

        await asyncio.to_thread(act)

    async def read(self, name: str) -> bytes:
        """Read the whole."""
        return await asyncio.to_thread((self._folder / name).read_bytes)


Write = Callable[[str, Sequence[bytes]], Awaitable[None]]
Read = Callable[[str], Awaitable[bytes]]


@dataclass
class Rate:
    """How fast it went."""

    bytes: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0

    @property
    def megabytes_per_s(self) -> float:
        """By the clock on the wall."""
        return self.bytes / self.wall_s / 1e6

    @contextmanager
    def timed(self, count: int) -> Iterator[None]:
        """Add what is done within."""
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        yield
        self.wall_s += time.perf_counter() - wall_s
        self.cpu_s += time.process_time() - cpu_s
        self.bytes += count


async def measure(write: Write, read: Read, total: int, folder: Path | None) -> tuple[Rate, Rate]:
    """Of writing and of reading."""
    wrote, was_read, lengths = Rate(), Rate(), list[int]()
    for number, blocks in enumerate(blobs(total)):
        lengths.append(sum(map(len, blocks)))
        with wrote.timed(lengths[-1]):
            await write(segment_name(1, number), blocks)
    if folder is not None:
        forget_pages(folder)
    for number, length in enumerate(lengths):
        with was_read.timed(length):
            found = await read(segment_name(1, number))
        assert len(found) == length
        del found
    return wrote, was_read


def forget_pages(folder: Path) -> None:
    """Ask the kernel to drop what it holds of the files below a folder."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def object_store() -> Iterator[ObjectCheckpointSettings]:
    """A bucket on moto's server."""
    from tests.stores import in_bucket, object_server

    with object_server() as url:
        settings = in_bucket(url).settings
        assert isinstance(settings, ObjectCheckpointSettings)
        yield settings


async def through(settings: CheckpointSettings, total: int, folder: Path | None = None) -> tuple[Rate, Rate]:
    """The same through a store; read by an instance that did not write."""
    writer, reader = make_store(settings), make_store(settings)
    try:
        await writer.start()
        await writer.create(_SHARD, fence_name(1))
        await reader.start()

        async def write(name: str, blocks: Sequence[bytes]) -> None:
            await writer.write(_SHARD, name, blocks)

        async def read(name: str) -> bytes:
            return await reader.read(_SHARD, name)

        return await measure(write, read, total, folder)
    finally:
        await _stop(writer, reader)


async def _stop(*stores: Store) -> None:
    for store in stores:
        await store.stop()


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--stores", default="dir,kafka,object")
    arguments = parser.parse_args()
    total, wanted = arguments.megabytes * 1_000_000, arguments.stores.split(",")
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tidewarden-stores-")))
        plain, folder = root / "plain", root / "dir"
        plain.mkdir()
        files = PlainFiles(plain)
        base = asyncio.run(measure(files.write, files.read, total, plain))
        _report("plain files", base, base)
        for path in plain.iterdir():
            path.unlink()
        if "dir" in wanted:
            _report("dir", asyncio.run(through(DirCheckpointSettings(path=folder), total, folder)), base)
        if "kafka" in wanted:
            address = stack.enter_context(broker())
            kafka = KafkaCheckpointSettings(type="kafka", bootstrap_servers=address)
            _report("kafka", asyncio.run(through(kafka, total)), base)
        if "object" in wanted:
            _report("object", asyncio.run(through(stack.enter_context(object_store()), total)), base)


def _report(name: str, rates: tuple[Rate, Rate], base: tuple[Rate, Rate]) -> None:
    said = [
        f"{verb} {rate.megabytes_per_s:6.0f} MB/s, {plain.megabytes_per_s / rate.megabytes_per_s:5.2f} x the time, "
        f"{rate.cpu_s / rate.bytes * 1e9:5.2f} CPU s/GB"
        for verb, rate, plain in zip(("write", "read"), rates, base, strict=True)
    ]
    print(f"{name:<12} {'   '.join(said)}", flush=True)


if __name__ == "__main__":
    main()
