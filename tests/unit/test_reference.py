"""The pages that are made from code, and the dashboard that speaks of the metrics."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from detector import reference
from detector.settings import Settings
from detector.telemetry import Telemetry

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "deploy/grafana/dashboards/tidewarden.json"


@pytest.mark.parametrize("name", reference.pages())
def test_page_is_what_the_code_says(name):
    """`make references` makes it so again."""
    assert (ROOT / "docs" / name).read_text() == reference.pages()[name], "run: python -m detector.reference"


def test_every_setting_has_a_meaning():
    """The docstring under it; without one the reference would have a hole."""

    def holes(schema: dict) -> list[str]:
        sections = [schema, *schema["$defs"].values()]
        return [
            f"{section['title']}.{name}"
            for section in sections
            for name, field in section["properties"].items()
            if name != "type" and not field.get("description")
        ]

    assert holes(Settings.model_json_schema()) == []


def test_every_metric_of_the_dashboard_exists():
    """A renamed metric must not leave an empty panel behind; the system test asks a real Prometheus."""
    known = {each.name for each in Telemetry().described}
    known |= {f"{each.name}_bucket" for each in Telemetry().described if each.kind == "histogram"}
    text = DASHBOARD.read_text()
    assert set(re.findall(r"tidewarden_\w+", text)) <= known


def test_dashboard_can_be_provisioned():
    """A fixed uid, its data source a variable, panels that do not overlap, ids that are unique."""
    board = json.loads(DASHBOARD.read_text())
    assert board["uid"] == "tidewarden"
    assert [each["type"] for each in board["templating"]["list"]] == ["datasource", "query"]
    cells = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        mine = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not mine & cells
        assert all(x < 24 for x, _ in mine)
        cells |= mine
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel.get("targets", ()))
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))


def test_provisioning_is_yaml():
    """Grafana reads these two at its start."""
    for path in (ROOT / "deploy/grafana/provisioning").rglob("*.yaml"):
        assert yaml.safe_load(path.read_text())["apiVersion"] == 1
