"""docs/extending.md is true: what it says to write works, and its cell goes through the battery."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from tests.battery import test_sequence as laws
from tests.battery.networks import GAPS, HIDDEN, INPUTS, made, samples
from tests.battery.test_bundle import exported
from tests.battery.test_learning import WITH_MEMORY, learn
from training.cells import CELLS
from training.shapes import SHAPES, Architecture, build

DOCUMENT = Path(__file__).parents[2] / "docs" / "extending.md"
MGU = Architecture(cell="mgu", hidden=HIDDEN)


@pytest.fixture(scope="module")
def written() -> dict[str, Any]:
    """The document's code, executed in its order; the registry forgets it afterwards."""
    before = dict(CELLS), dict(SHAPES)
    names: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(code, str(DOCUMENT), "exec"), names)
    yield names
    for registry, known in zip((CELLS, SHAPES), before, strict=True):
        registry.clear()
        registry.update(known)


@pytest.mark.usefixtures("written")
@pytest.mark.parametrize(
    "law",
    [
        laws.test_unroll_is_step_after_step,
        laws.test_rows_may_differ_in_length,
        laws.test_chunks_with_the_state_carried_are_one,
        laws.test_gradients_reach_every_weight,
        laws.test_the_future_does_not_leak,
        laws.test_a_state_makes_a_round_trip_through_the_row,
        laws.test_a_network_says_how_wide_it_is,
    ],
)
def test_the_cell_keeps_the_laws_of_sequences(law: Any) -> None:
    """Each of them, as for every name of the registry."""
    law(made(MGU))


def test_the_cell_computes_its_reference(written: dict[str, Any]) -> None:
    """The document's reference is that of the document's cell."""
    network, x = made(MGU), samples(3, 20)
    got, _ = network.unroll(x, torch.zeros(3, network.state_width))
    torch.testing.assert_close(got, written["mgu"](network, x), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("written")
def test_the_cell_learns_and_leaves_torch(tmp_path: Path) -> None:
    """It reaches the smoke task's loss, and a bundle of it is proved."""
    torch.manual_seed(3)
    assert learn(build(MGU, INPUTS, GAPS)) < WITH_MEMORY
    assert exported(MGU, tmp_path).exists()


@pytest.mark.usefixtures("written")
def test_the_shape_is_one_too() -> None:
    """With any cell, and what it remembers is what it declared."""
    laws.test_unroll_is_step_after_step(made(Architecture(shape="looked-over", cell="mgu", hidden=HIDDEN, reach=3)))
