"""`tidewarden check --connect` on a real Kafka: what it finds, and that it leaves no trace."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import yaml
from aiokafka.admin import AIOKafkaAdminClient
from typer.testing import CliRunner, Result

from detector import cli
from tests.kafka.topics import create_topic, new_name, produce

pytestmark = pytest.mark.system

BUNDLE = Path(__file__).parents[1] / "golden/tiny-any.onnx"


async def check(folder: Path, kafka: str, source: dict[str, object], alerts: str) -> Result:
    broker = {"type": "kafka", "bootstrap_servers": kafka}
    configuration = {
        "sources": {"pumps": {**broker, **source}},
        "detectors": {"default": {"bundle": str(BUNDLE)}},
        "sinks": {"alerts": {"out": {**broker, "topic": alerts}}},
    }
    path = folder / "t.yaml"
    path.write_text(yaml.safe_dump(configuration))
    return await asyncio.to_thread(CliRunner().invoke, cli.app, ["check", "--connect", "-c", str(path)])


async def groups(kafka: str) -> set[str]:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        return {group[0] for group in await admin.list_consumer_groups()}
    finally:
        await admin.close()


async def test_topics_are_looked_at_without_joining_the_group(kafka: str, tmp_path: Path) -> None:
    """A daemon that serves in that group keeps its partitions."""
    samples, alerts, group = await create_topic(kafka, 3), await create_topic(kafka), new_name("group")
    await produce(kafka, samples, [b"{}"] * 5, partition=1)
    before = await groups(kafka)
    for source in ({"topics": [samples]}, {"pattern": samples[:-2] + ".."}):
        found = await check(tmp_path, kafka, {**source, "group": group}, alerts)
        assert found.exit_code == 0, found.output
        assert f"{samples}: 3 shards, 5 positions" in found.stdout
    assert group not in await groups(kafka)
    assert await groups(kafka) == before


async def test_a_compacted_alert_topic_is_refused(kafka: str, tmp_path: Path) -> None:
    """It would keep only the last alert of each stream."""
    samples, alerts = await create_topic(kafka), await create_topic(kafka, configs={"cleanup.policy": "compact"})
    found = await check(tmp_path, kafka, {"topics": [samples]}, alerts)
    assert found.exit_code == 2
    assert "expected delete, got compact" in found.stdout


async def test_a_misspelt_topic_is_told_with_the_nearest(kafka: str, tmp_path: Path) -> None:
    """And the alert topic is still looked at."""
    samples, alerts = await create_topic(kafka), await create_topic(kafka)
    found = await check(tmp_path, kafka, {"topics": [samples + "x"]}, alerts)
    assert found.exit_code == 1
    assert f"did you mean '{samples}'" in found.stdout
    assert found.stdout.count("FAULT") == 1


async def test_a_pattern_that_matches_nothing_is_a_fault(kafka: str, tmp_path: Path) -> None:
    """A daemon would wait for ever."""
    found = await check(tmp_path, kafka, {"pattern": new_name("nothing")}, await create_topic(kafka))
    assert found.exit_code == 1
    assert "got none" in found.stdout
