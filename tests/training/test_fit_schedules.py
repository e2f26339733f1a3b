"""The learning rate: a function of the moment, for every schedule."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch

from tests.waves import changed
from training.fit.schedules import SCHEDULES, Moment, rate
from training.settings import FitSettings


def rates(settings: FitSettings, losses: tuple[float, ...] = (), each: int = 10) -> list[float]:
    """Ten of an epoch, over all epochs."""
    return [rate(Moment(at / each, losses), settings) for at in range(settings.epochs * each)]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_rate_is_positive_and_never_above_the_highest(schedule: str) -> None:
    """Whatever the schedule, the rate lies within 0 and `learning_rate`, and reaches it."""
    found = rates(changed(schedule=schedule, epochs=12, cycle=4, learning_rate=0.5))
    assert min(found) > 0
    assert max(found) == pytest.approx(0.5)


def test_the_cosine_is_torchs() -> None:
    """The default schedule gives the rates of torch's own, so that bundles come out as they did."""
    settings = changed(epochs=9)
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], settings.learning_rate)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.epochs + 1, settings.learning_rate / 20)
    for epoch in range(settings.epochs):
        found = [rate(Moment(epoch + share, ()), settings) for share in (0.0, 0.5, 0.99)]
        assert found == pytest.approx(3 * theirs.get_last_lr(), rel=1e-12)
        optimiser.step()
        theirs.step()


def test_schedules_move_as_their_names_say() -> None:
    """Steps fall by `decay`, an exponential by it in `cycle` epochs; triangles rise and fall, one cycle once."""
    common = {"epochs": 12, "cycle": 4, "learning_rate": 1.0, "decay": 0.5, "lowest": 0.1}
    found = {name: rates(changed(schedule=name, **common)) for name in SCHEDULES}
    assert set(found["constant"]) == {1.0}
    assert [found["step"][10 * epoch] for epoch in (0, 3, 4, 8)] == [1, 1, 0.5, 0.25]
    assert found["exponential"][40] == pytest.approx(0.5)
    assert [found["cyclical"][at] for at in (0, 20, 40, 60)] == pytest.approx([0.1, 1, 0.1, 1])
    assert found["one_cycle"][0] == pytest.approx(0.1)
    assert max(found["one_cycle"]) == pytest.approx(found["one_cycle"][40])
    assert found["one_cycle"][-1] < 0.002


def test_a_plateau_slows_down() -> None:
    """Each time the loss has not become better for `cycle` epochs the rate is halved; a gain begins the count anew."""
    settings = changed(schedule="plateau", cycle=2, decay=0.5, learning_rate=1.0)
    seen = (5.0, 4.0, 4.0, 4.0, 3.0, 3.0, 3.0, 3.0, 3.0)
    found = [rate(Moment(float(at), seen[: at + 1]), settings) for at in range(len(seen))]
    assert found == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.125]


def test_a_warm_up_rises_from_nothing() -> None:
    """During `warm_up` epochs the rate rises in a line, whatever the schedule; afterwards it is the schedule's."""
    ramp, plain = (rates(changed(epochs=6, schedule="step", warm_up=share)) for share in (2.0, 0.0))
    assert ramp[:20] == pytest.approx([at / 20 * full for at, full in enumerate(plain[:20])])
    assert ramp[20:] == plain[20:]
