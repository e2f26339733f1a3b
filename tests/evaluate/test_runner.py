"""The runner is the daemon: the same bits as its engine, for one case or many, whatever the slots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import pytest

from detector.model.bundle import read_bundle
from detector.model.session import Session
from detector.scoring import engine_factory, score_arrays
from detector.settings import DecideSettings, DetectorSettings
from detector.stages.decide import Policy
from tests.evaluate import made_up
from tests.shared_data import benchmark_data
from training.evaluate.runner import judge
from training.evaluate.suites import SUITES, Case
from training.evaluate.verdict import Verdict

pytest.importorskip("onnxruntime")

BUDGET = DecideSettings(budget_per_day=200.0)  # of 1 s rows: a threshold that made-up bumps reach


@pytest.fixture(scope="module")
def session() -> Session:
    return Session(read_bundle(made_up.ANY))


def policy(session: Session) -> Policy:
    return Policy.of(BUDGET, session.bundle)


def unlike(channels: int = 1) -> list[Case]:
    """Cases of unlike length, with gaps, refused rows and irregular times."""
    rng = np.random.default_rng(1)
    cases = []
    for number, rows in enumerate((700, 350, 401, 330, 520)):
        values = 10.0**number * made_up.wave(rows, channels, number)
        values[rng.random(values.shape) < 0.05] = np.nan
        values[40] = np.inf
        time_ns = 10**18 + np.cumsum(rng.integers(1, 3 * 10**9, rows))
        time_ns[60] = time_ns[59]
        cases.append(made_up.case(f"case {number}", values, time_ns=time_ns))
    return cases


def verdicts(session: Session, cases: Sequence[Case], **options: int) -> list[Verdict]:
    found = dict(judge(session, policy(session), cases, **options))
    return [found[place] for place in range(len(cases))]


def assert_same(one: Verdict, other: Verdict) -> None:
    for entry in fields(Verdict):
        if entry.name != "seconds":
            np.testing.assert_array_equal(getattr(one, entry.name), getattr(other, entry.name), entry.name)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_runner_is_the_daemons_engine(session: Session, channels: int) -> None:
    """Scores, thresholds, anomalies and forecasts have the bits that `tidewarden score` gives."""
    cases = unlike(channels)
    factory = engine_factory(session.bundle, DetectorSettings(decide=BUDGET), detail=True)
    names = [f"channel_{c}" for c in range(channels)]
    streams = {case.name: (case.time_ns, case.values) for case in cases}
    truth = score_arrays(factory, streams, names, detail=True)
    found = verdicts(session, cases)
    for case, verdict in zip(cases, found, strict=True):
        own = truth[case.name]
        accepted = case.accepted
        assert sorted(own.reasons) == np.flatnonzero(~accepted).tolist()
        for name in ("score", "anomaly", "threshold"):
            np.testing.assert_array_equal(getattr(verdict, name), getattr(own, name), name)
        for name in ("expected", "lower", "upper"):
            told = getattr(own.detail, name)[:, verdict.channel].astype(np.float32)
            np.testing.assert_array_equal(getattr(verdict, name), told, name)
    assert sum(len(verdict.opened) for verdict in found) > 0  # else the alarms were not compared


@pytest.mark.parametrize("slots", [1, 2, 4])
def test_how_many_walk_side_by_side_changes_no_bit(session: Session, slots: int) -> None:
    """A case that takes the slot of another starts as a stream that was never seen; company changes nothing."""
    cases = unlike()
    together = verdicts(session, cases)
    for one, other in zip(verdicts(session, cases, slots=slots), together, strict=True):
        assert_same(one, other)
    for one, other in zip(verdicts(session, cases[::-1], slots=slots), together[::-1], strict=True):
        assert_same(one, other)


def test_a_slot_that_kept_its_memory_would_be_seen(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: without the fresh row at a hand-over of a slot, scores differ."""
    from training.evaluate import runner

    cases = unlike()
    together = verdicts(session, cases)
    seat = runner._Walk._seat

    def keeps(walk: runner._Walk, slot: int) -> None:
        kept = walk._state[slot].copy()
        seat(walk, slot)
        walk._state[slot] = kept

    monkeypatch.setattr(runner._Walk, "_seat", keeps)
    found = verdicts(session, cases, slots=1)
    assert not all(np.array_equal(one.score, other.score) for one, other in zip(found, together, strict=True))


def test_refused_rows_score_nothing_and_open_nothing(session: Session) -> None:
    """A row that the daemon refuses has score 0 and no forecast; a case of such rows alone is judged all the same."""
    empty = made_up.case("empty", np.full((50, 1), np.nan))
    ours, nothing = verdicts(session, [unlike()[0], empty])
    refused = ~unlike()[0].accepted
    assert refused.sum() >= 2
    assert not ours.score[refused].any()
    assert np.isnan(ours.expected[refused]).all()
    assert not nothing.score.any()
    assert np.isnan(nothing.expected).all()
    assert not len(nothing.opened)


def test_openings_are_the_rows_at_which_an_anomaly_begins(session: Session) -> None:
    """Each opened row is in an anomaly, and each run of anomalous rows begins with one."""
    for case, verdict in zip(unlike(), verdicts(session, unlike()), strict=True):
        told = verdict.anomaly[case.accepted]
        begins = np.flatnonzero(case.accepted)[np.flatnonzero(np.diff(told, prepend=0) == 1)]
        assert set(begins) <= set(verdict.opened)
        assert verdict.anomaly[verdict.opened].all()


def test_progress_counts_every_accepted_row_once(session: Session) -> None:
    """A bar over the rows ends full."""
    told: list[int] = []
    cases = unlike()
    list(judge(session, policy(session), cases, on_rows=told.append))
    assert sum(told) == sum(int(case.accepted.sum()) for case in cases)


def test_a_declared_target_reaches_the_graph(session: Session) -> None:
    """The graph is told 1 for the target and -1 for the others, and nothing of cases that declare none."""
    told: list[np.ndarray] = []

    class Listening:
        bundle = session.bundle

        def step(self, *wave: np.ndarray) -> object:
            *known, further = wave
            told.append(further["role"])
            return session.step(*known)

    cases = [made_up.case("a", made_up.wave(5, 3), target=1), made_up.case("b", made_up.wave(5, 3))]
    list(judge(Listening(), policy(session), cases, declare_roles=True))  # type: ignore[arg-type]  # listens only
    np.testing.assert_array_equal(told[0], [[-1, 1, -1], [0, 0, 0]])


def test_public_series_alone_and_together(session: Session) -> None:
    """Three public series side by side are three public series alone."""
    cases, _ = SUITES["tsb-ad-u"].load(benchmark_data("."), "*NAB*Traffic*")
    cases = [case for case in cases if len(case) < 3_000][:3]
    assert len(cases) == 3
    for case, together in zip(cases, verdicts(session, cases), strict=True):
        assert_same(verdicts(session, [case])[0], together)
