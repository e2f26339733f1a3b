"""How a shard is called where checkpoints lie: a folder's name that people can read, and an identity to come back from.

Any topic or path is safe in either. The folder's name cannot be turned back into a shard, which is why each claim holds
the identity as its content.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

import msgspec

from detector.records import Shard

_READABLE = 80  # characters of the topic in a folder's name; the hash behind tells shards apart


def identity(shard: Shard) -> bytes:
    """The shard as a line of JSON; equal for equal shards, for ever."""
    return msgspec.json.encode([shard.cluster, shard.topic, shard.partition])


def shard_of(text: bytes) -> Shard | None:
    """The shard whose identity it is; None where it is none, such as an empty or torn one."""
    try:
        cluster, topic, partition = msgspec.json.decode(text, type=tuple[str, str, int])
    except msgspec.MsgspecError:
        return None
    return Shard(cluster, topic, partition)


def in_order(shards: Iterable[Shard | None]) -> list[Shard]:
    """Shards sorted by their text, each once."""
    return sorted({shard for shard in shards if shard is not None}, key=lambda shard: (str(shard), identity(shard)))


def folder_name(shard: Shard) -> str:
    """A readable name, safe for any topic or path, and a hash of the identity."""
    readable = re.sub(r"[^A-Za-z0-9._-]", "_", shard.topic)[-_READABLE:].lstrip(".") or "_"
    return f"{readable}-{shard.partition}-{hashlib.sha256(identity(shard)).hexdigest()[:12]}"
