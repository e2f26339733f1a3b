"""HTTP: what probes, Prometheus and people get."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import aiohttp
import msgspec
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from detector.admin import Server, serve
from detector.clock import ManualClock
from detector.errors import ConfigurationError
from detector.records import Shard
from detector.settings import HttpSettings
from detector.telemetry import Telemetry
from tests.unit.test_telemetry import NOW_NS, alert

SHARD = Shard("c", "pumps", 3)


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry(clock=ManualClock(NOW_NS))


@pytest.fixture
async def server(telemetry: Telemetry) -> AsyncIterator[Server]:
    running = await serve(HttpSettings(port=0), telemetry)
    yield running
    await running.stop()


async def get(server: Server, path: str, **headers: str) -> tuple[int, str, str]:
    """Status, content type, body."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{server.port}{path}", headers=headers) as response,
    ):
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        return response.status, response.headers["Content-Type"], await response.text()


@pytest.mark.parametrize("path", ["/-/healthy", "/livez"])
async def test_live_needs_nothing(server, path):
    """The event loop turns: that is all, whatever brokers do."""
    assert (await get(server, path))[0] == 200


@pytest.mark.parametrize("path", ["/-/ready", "/readyz"])
async def test_ready_tells_why_not(server, telemetry, path):
    """503 with reasons until self-tested, assigned and restored."""
    status, kind, body = await get(server, path)
    assert status == 503
    assert kind.startswith("application/json")
    assert "self-test" in body
    telemetry.self_tested()
    telemetry.assigned("plant", [SHARD])
    assert "pumps-3 is not restored" in (await get(server, path))[2]
    telemetry.restored(SHARD, 0)
    assert (await get(server, path))[0] == 200


async def test_metrics_speak_both_formats(server):
    """Prometheus' text by default, OpenMetrics where it is asked for; both parse."""
    _, kind, text = await get(server, "/metrics")
    assert kind.startswith("text/plain")
    assert "tidewarden_build_info" in {family.name for family in parse_text(text)}
    _, kind, text = await get(server, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert text.endswith("# EOF\n")
    assert "tidewarden_build_info" in {family.name for family in parse_openmetrics(text)}


async def test_page_shows_what_goes_on(server, telemetry):
    """Alerts with stream, score and channel to blame; shards; no script; renewed by itself; for phones and at night."""
    telemetry.bundle_loaded("d", "gru@1", "ab" * 32, budget_per_day=2.0)
    telemetry.assigned("plant", [SHARD])
    telemetry.restored(SHARD, 12, rows=3)
    telemetry.checkpointed(SHARD, position=12, seconds=0.1, rows=3, size_bytes=10)
    telemetry.alerts_delivered([alert()])
    _, kind, page = await get(server, "/")
    assert kind.startswith("text/html")
    text = re.sub(r"<[^>]+>", " ", page)
    for shown in ("pump-7", "6.0", "current (75%): missing, expected 2", "pumps-3", "gru@1", "0 s ago", "not ready"):
        assert shown in text
    assert "<script" not in page
    for wanted in ('http-equiv="refresh"', "prefers-color-scheme: dark", 'name="viewport"'):
        assert wanted in page


async def test_page_of_a_daemon_that_has_just_started(server):
    """Nothing is there yet, and nothing breaks."""
    assert (await get(server, "/"))[0] == 200


async def test_what_came_from_outside_is_escaped(server, telemetry):
    """A stream may be called anything."""
    telemetry.alerts_delivered([msgspec.structs.replace(alert(), stream="<script>alert(1)</script>")])
    page = (await get(server, "/"))[2]
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


async def test_status_is_the_page_for_programs(server, telemetry):
    """The same snapshot as JSON."""
    telemetry.alerts_delivered([alert()])
    _, kind, body = await get(server, "/status.json")
    assert kind.startswith("application/json")
    assert '"stream": "pump-7"' in body


async def test_nothing_can_be_changed(server):
    """Read-only: other verbs are refused."""
    async with aiohttp.ClientSession() as session:
        for path in ("/", "/metrics", "/-/ready"):
            async with session.post(f"http://127.0.0.1:{server.port}{path}") as response:
                assert response.status == 405


async def test_port_in_use_is_a_configuration_error(server, telemetry):
    """Told with the address, before anything else starts."""
    with pytest.raises(ConfigurationError, match=f"127.0.0.1:{server.port}: expected a free address"):
        await serve(HttpSettings(port=server.port), telemetry)


async def test_stop_may_be_called_twice(telemetry):
    """And frees the port."""
    running = await serve(HttpSettings(port=0), telemetry)
    await running.stop()
    await running.stop()
    again = await serve(HttpSettings(port=running.port), telemetry)
    await again.stop()
