"""A topic that has grown: most of its keys stand in other partitions now, where their streams have no memory."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import yaml

from tests.kafka.topics import add_partitions
from tests.system.examine import examine
from tests.system.feed import Feed
from tests.system.site import KafkaSite, kafka_site
from tests.system.test_broker_away import append, scored_to_the_end

pytestmark = pytest.mark.system


@pytest.mark.timeout(180)
async def test_more_partitions_are_refused_until_the_operator_accepts_them(
    kafka: str, tmp_path: Path, seed: int
) -> None:
    """With both numbers; accepted, each partition that was there goes on with its memory, and no later start asks."""
    site: KafkaSite = await kafka_site(kafka, tmp_path, {"wide": Feed(seed)})
    await append(site)
    await scored_to_the_end(site, site.start())
    await add_partitions(site.address, site.topics["wide"], 5)
    refused = site.start()
    await refused.until_ended(code=1)
    assert "number of partitions of the topic: expected 4, as at the checkpoint, got 5" in refused.log()
    assert "set on_partitions_changed to continue" in refused.log()
    say(site, "continue")
    await append(site)
    accepting = site.start()
    await scored_to_the_end(site, accepting)
    assert "the topic has another number of partitions" in accepting.log()
    say(site, "fail")
    await append(site)
    again = site.start()
    await scored_to_the_end(site, again)
    assert "another number of partitions" not in again.log()
    assert await examine(site) == Counter()


def say(site: KafkaSite, what: str) -> None:
    """What the operator says of it."""
    settings = yaml.safe_load(site.config.read_text())
    settings["sources"]["wide"]["on_partitions_changed"] = what
    site.write(settings)
