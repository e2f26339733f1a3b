"""The synthetic plant and the source that replays it."""

from itertools import pairwise

import msgspec
import numpy as np
import pytest

from detector.alerts import rfc3339
from detector.clock import ManualClock
from detector.demo.plant import CHANNELS, HEALTHY_S, KINDS, MONDAY_NS, Plant
from detector.demo.truth import GRACE_S, Truth, to_ns, total, verdict
from detector.records import Alert, SourcePosition
from detector.settings import PlantSourceSettings
from detector.sources.plant import PlantSource


def drawn(plant: Plant, hours: float, faults: bool = True):
    """All samples of a plant as three arrays."""
    return [np.concatenate(column) for column in zip(*plant.samples(hours, faults), strict=True)]


def test_same_seed_same_plant():
    """Two plants of one seed agree in every bit; another seed gives another plant."""
    first, again, other = (drawn(Plant(8, seed), 2.0) for seed in (3, 3, 4))
    assert all(a.tobytes() == b.tobytes() for a, b in zip(first, again, strict=True))
    assert first[2].tobytes() != other[2].tobytes()


def test_samples_come_in_order_of_time_and_look_like_a_plant():
    """Event times never fall, a stream's rise strictly, few cells are missing, and no number is infinite."""
    stream, event_ns, values = drawn(Plant(20, 5), 3.0)
    assert (np.diff(event_ns) >= 0).all()
    assert all((np.diff(event_ns[stream == each]) > 0).all() for each in range(20))
    assert event_ns[0] >= MONDAY_NS
    assert values.shape == (len(stream), len(CHANNELS))
    assert 0.0 < np.isnan(values).mean() < 0.01
    assert not np.isinf(values).any()
    assert 0.98 < len(stream) / (20 * 3 * 360) < 1.0


def test_fewer_hours_are_a_prefix():
    """How long one watches changes nothing of what is seen, faults aside, which must end within the hours."""
    short, long = (drawn(Plant(6, 1), hours, faults=False) for hours in (1.5, 4.0))
    assert all(a.tobytes() == b[: len(a)].tobytes() for a, b in zip(short, long, strict=True))


def test_faults_are_known_and_touch_only_their_own_pump():
    """Between a fault's start and end its channels differ from the healthy plant; before any fault nothing does."""
    plant = Plant(50, 7)
    faults = plant.faults(12.0)
    assert {fault.kind for fault in faults} == set(KINDS)
    assert all(plant.start_ns + HEALTHY_S * 1e9 <= fault.start_ns < fault.end_ns for fault in faults)
    (stream, event_ns, bent), (_, _, healthy) = drawn(plant, 12.0), drawn(plant, 12.0, faults=False)
    touched = np.zeros(len(stream), bool)
    for fault in faults:
        during = (stream == fault.stream) & (event_ns >= fault.start_ns) & (event_ns < fault.end_ns + 2e13)
        touched |= during
        columns = [CHANNELS.index(channel) for channel in fault.channels]
        differs = np.abs(bent[during] - healthy[during])[:, columns]
        assert (np.nanmax(differs, axis=0) > 0).all(), fault
    assert np.array_equal(bent[~touched], healthy[~touched], equal_nan=True)


def alert(stream: str, detected_at: str, anomaly: str = "a") -> Alert:
    """An alert as far as the truth looks at it."""
    where = SourcePosition(cluster="plant", topic="demo", partition=0, offset=1)
    return Alert(
        id=anomaly, anomaly_id=anomaly, sequence=0, event="open", status="firing", reason="threshold", stream=stream,
        labels={}, detector="default", bundle="b@1", time=detected_at, started_at=detected_at, detected_at=detected_at,
        ended_at=None, score=5.0, peak_score=5.0, threshold=4.0, channels=[], source=where,
    )  # fmt: skip


def test_an_anomaly_counts_for_the_fault_of_its_own_pump_and_time():
    """From the start to a little after the end it is found, before, later and elsewhere it is a false alarm."""
    plant = Plant(50, 7)
    truth = Truth(plant, 12.0)
    fault = truth.faults[0]
    name, grace_ns = plant.names[fault.stream], round(GRACE_S * 1e9)
    in_time, again = fault.start_ns + 60 * 10**9, fault.end_ns + grace_ns - 10**9
    assert truth.learn(alert(name, rfc3339(in_time), "1")) is fault
    assert truth.learn(alert(name, rfc3339(again), "2")) is fault
    assert truth.learn(alert(name, rfc3339(fault.start_ns - 10**9), "3")) is None
    assert truth.learn(alert(name, rfc3339(fault.end_ns + grace_ns + 10**9), "4")) is None
    assert truth.false_alarms == 2
    assert total(truth.tallies(fault.start_ns)).known == 1
    assert total(truth.tallies(fault.start_ns)).delay_s == pytest.approx(60.0)


def test_an_anomaly_counts_once():
    """Updates of an anomaly, and copies read back after a restart, are no further alarms."""
    truth = Truth(Plant(2, 1), 1.0)
    for _ in range(3):
        truth.learn(alert("pump-01", "2026-03-02T00:30:00Z"))
    assert truth.false_alarms == 1
    assert verdict(truth.tallies(MONDAY_NS), truth.false_alarms) == "found 0 of 0 known faults; 1 false alarm"


def test_times_of_alerts_are_read_exactly():
    """Microseconds survive."""
    assert to_ns("2026-03-02T00:00:00.000001Z") == MONDAY_NS + 1000


async def everything(source: PlantSource, position: int) -> list:
    """Every (position, value) from a position on."""
    (shard,) = await source.assigned() or ()
    await source.resume(shard, position)
    seen = []
    while not source.exhausted:
        for records in await source.poll(0.01):
            seen += zip(records.positions.tolist(), records.values, strict=True)
            assert records.next_position > records.positions[-1]
    return seen


async def test_a_position_always_means_the_same_record():
    """Reading on from any position gives what an undisturbed reader gets after it."""
    settings = PlantSourceSettings(type="plant", streams=4, hours=2.5, speed=None)
    whole = await everything(PlantSource("demo", settings, ManualClock()), 0)
    bounds = await PlantSource("demo", settings, ManualClock()).bounds(None)
    assert whole[0][0] == bounds.low == 0
    assert whole[-1][0] < bounds.high
    assert all(a < b for (a, _), (b, _) in pairwise(whole))
    for cut in (1, 700, len(whole) // 2, len(whole) - 1):
        position = whole[cut][0]
        assert await everything(PlantSource("demo", settings, ManualClock()), position) == whole[cut:]
    assert await everything(PlantSource("demo", settings, ManualClock()), bounds.high) == []


async def test_records_have_the_default_shape():
    """The default `record` settings read the plant; a missing cell is null."""
    settings = PlantSourceSettings(type="plant", streams=10, hours=1.0, speed=None)
    records = [msgspec.json.decode(v) for _, v in await everything(PlantSource("demo", settings, ManualClock()), 0)]
    assert records[0]["stream"].startswith("pump-")
    assert set(records[0]) == {"stream", "time", "values"}
    assert tuple(records[0]["values"]) == CHANNELS
    assert any(None in record["values"].values() for record in records)


async def test_a_paced_plant_follows_the_clock():
    """At 60 times real speed a second brings a minute of plant time, and no more."""
    clock = ManualClock()
    source = PlantSource("demo", PlantSourceSettings(type="plant", streams=10, hours=1.0, speed=60.0), clock)
    (shard,) = await source.assigned() or ()
    await source.resume(shard, 0)
    first = sum(map(len, await source.poll(0.0)))
    assert first == 1
    clock.advance(1.0)
    assert 50 <= sum(map(len, await source.poll(0.0))) <= 60
    assert await source.poll(0.0) == []


async def test_another_plant_has_another_anchor():
    """A checkpoint of one plant is not mistaken for one of another."""
    anchors = [
        await PlantSource("demo", PlantSourceSettings(type="plant", seed=seed), ManualClock()).anchor(None, 1000)
        for seed in (1, 1, 2)
    ]
    assert anchors[0] == anchors[1] != anchors[2]
