"""`tidewarden schema`: the JSON Schemas that editors, consumers and tests read."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Any

import typer

from detector.alerts import alert_schema
from detector.settings import Settings


class Subject(StrEnum):
    """What a schema is wanted of."""

    config = "config"
    alert = "alert"


def command(subject: Annotated[Subject, typer.Argument(help="Of what.")]) -> None:
    """Print the JSON Schema of the configuration or of alerts."""
    typer.echo(json.dumps(schema_of(subject), indent=2))


def schema_of(subject: Subject) -> dict[str, Any]:
    """The schema, draft 2020-12."""
    if subject is Subject.alert:
        return alert_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Settings.model_json_schema()}
