"""Which partitions are ours without asking the group: those that the settings list, or that our name stands for."""

from __future__ import annotations

import difflib
import re
import socket
from collections.abc import Mapping

from detector.errors import ConfigurationError, SourceError
from detector.settings import KafkaSourceSettings, parse_ordinal, parse_partitions


def fixed_partitions(
    settings: KafkaSourceSettings, topics: Mapping[str, int], where: str
) -> dict[str, list[int]] | None:
    """Our partitions of each topic; None where the group is to say.

    Args:
        settings: The source's.
        topics: What the cluster has, with how many partitions.
        where: For messages.

    Raises:
        ConfigurationError: No partition follows from the host's name.
        SourceError: A topic or a partition is not there.
    """
    for topic in settings.topics:
        if topic not in topics:
            near = difflib.get_close_matches(topic, topics, 1)
            hint = f"did you mean {near[0]!r}?" if near else "create it, or allow us to describe it"
            raise SourceError(where, f"topic {topic!r} is not there", hint=hint)
    if settings.partitions is None:
        return None
    counts = {topic: topics[topic] for topic in settings.topics}
    replicas = parse_ordinal(settings.partitions)
    return _listed(settings.partitions, counts, where) if replicas is None else _every(replicas, counts, where)


def _listed(partitions: str, counts: Mapping[str, int], where: str) -> dict[str, list[int]]:
    wanted = parse_partitions(partitions)
    for topic, count in counts.items():
        if max(wanted) >= count:
            expected = f"0 to {count - 1}"
            raise SourceError(where, f"partitions of topic {topic!r}", expected=expected, got=partitions)
    return dict.fromkeys(counts, wanted)


def _every(replicas: int, counts: Mapping[str, int], where: str) -> dict[str, list[int]]:
    """Every n-th partition, beginning with the number of this replica; together the replicas have each one once."""
    ordinal = _ordinal(socket.gethostname(), replicas, where)
    numbers = {topic: list(range(ordinal, count, replicas)) for topic, count in counts.items()}
    if not any(numbers.values()):
        most = max(counts.values())
        what, hint = f"partitions leave none for replica {ordinal}", f"no topic has more than {most} partitions"
        raise ConfigurationError(where, what, expected=f"ordinal/{most} at most", got=f"ordinal/{replicas}", hint=hint)
    return numbers


def _ordinal(host: str, replicas: int, where: str) -> int:
    """The number at the end of the host's name, as a StatefulSet gives it; its domain does not matter."""
    match = re.search(r"(\d+)$", host.partition(".")[0], re.ASCII)
    if match is not None and int(match[1]) < replicas:
        return int(match[1])
    raise ConfigurationError(
        where,
        f"partitions by ordinal/{replicas}: the host's name",
        expected=f"a number from 0 to {replicas - 1} at its end, as in tidewarden-0",
        got=host,
        hint="a StatefulSet of so many replicas names them so; else list the partitions",
    )
