"""Places where each kind of store can be: real ones, which a test may damage or take away.

place = await stack.enter_async_context(places["kafka"](...))
one, other = await place.open(), await place.open()      two instances, as two processes have them
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from detector.checkpoint.base import Store
from detector.checkpoint.stores import make_store
from detector.checkpoint.stores.kafka_ledger import HEADER
from detector.checkpoint.stores.shard_names import folder_name
from detector.errors import CheckpointError
from detector.records import Shard
from detector.settings import (
    CheckpointSettings,
    DirCheckpointSettings,
    KafkaCheckpointSettings,
    ObjectCheckpointSettings,
)
from tests.kafka import topics

BUCKET = "states"


@dataclass
class Place:
    """Where stores of one kind lie."""

    settings: CheckpointSettings
    damage: Callable[[Shard, str], Awaitable[None]]
    """Flip what a blob of one block holds."""
    cut: Callable[[], None]
    """Take the place away from stores that are started."""
    opened: list[Store] = field(default_factory=list)

    async def open(self) -> Store:
        """One more instance, started."""
        store = make_store(self.settings)
        self.opened.append(store)
        await store.start()
        return store

    async def close(self) -> None:
        """Stop all of them."""
        for store in self.opened:
            with contextlib.suppress(CheckpointError):
                await store.stop()


@asynccontextmanager
async def closing(place: Place) -> AsyncIterator[Place]:
    """Stop whatever was opened."""
    try:
        yield place
    finally:
        await place.close()


def in_folder(folder: Path) -> Place:
    """A folder on the disk."""

    async def damage(shard: Shard, name: str) -> None:
        path = folder / folder_name(shard) / name
        path.write_bytes(bytes(byte ^ 255 for byte in path.read_bytes()))

    def cut() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.write_text("no folder any more")

    return Place(DirCheckpointSettings(path=folder), damage, cut)


@contextmanager
def object_server() -> Iterator[str]:
    """The URL of moto's S3 on loopback, with an empty bucket."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        server.start()
        try:
            url = "http://{}:{}".format(*server.get_host_and_port())
            boto3.client("s3", endpoint_url=url, region_name="us-east-1").create_bucket(Bucket=BUCKET)
            yield url
        finally:
            server.stop()


def in_bucket(server: str, cut: Callable[[], None] = lambda: None) -> Place:
    """A prefix of its own in the bucket."""
    prefix = uuid.uuid4().hex[:8]
    client = boto3.client("s3", endpoint_url=server, region_name="us-east-1")

    async def damage(shard: Shard, name: str) -> None:
        at = {"Bucket": BUCKET, "Key": f"{prefix}/{folder_name(shard)}/{name}"}
        content = client.get_object(**at)["Body"].read()
        client.put_object(**at, Body=bytes(byte ^ 255 for byte in content))

    options = {"endpoint": server, "region": "us-east-1", "allow_http": "true"}
    return Place(ObjectCheckpointSettings(type="object", url=f"s3://{BUCKET}/{prefix}", options=options), damage, cut)


async def in_topic(address: str, partitions: int = 3, cut: Callable[[], None] = lambda: None) -> Place:
    """A compacted topic of its own; with few partitions, so that shards meet."""
    topic = await topics.create_topic(address, partitions, {"cleanup.policy": "compact"}, name=topics.new_name("state"))

    async def damage(shard: Shard, name: str) -> None:
        key = json.dumps([shard.cluster, shard.topic, shard.partition, name, 0], separators=(",", ":")).encode()
        partition = shard.partition % partitions
        record = next(each for each in (await topics.read_all(address, topic))[partition] if each.key == key)
        await topics.produce(
            address,
            topic,
            [bytes(byte ^ 255 for byte in record.value) + b"!"],
            keys=[key],
            partition=partition,
            headers=[(HEADER, dict(record.headers)[HEADER])],
        )

    return Place(KafkaCheckpointSettings(type="kafka", bootstrap_servers=address, topic=topic), damage, cut)
