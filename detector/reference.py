"""`python -m detector.reference`: writes docs/configuration.md and docs/metrics.md from the code.

A test fails while the two are not what this module would write.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
import yaml
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from detector.records import Reason
from detector.settings import Settings
from detector.telemetry import Telemetry

_MADE = "<!-- Made by `python -m detector.reference`; edit the code, not this page. -->\n\n"

_CONFIGURATION = """# Configuration

One YAML file, `tidewarden run -c FILE`. Above it stands the environment, above that the command line.

- `TIDEWARDEN_HTTP__PORT=0` sets `http.port`: the prefix, then the path with `__` between its parts. Maps are reached
  too: `TIDEWARDEN_SOURCES__MY_PLANT__GROUP=g` sets the group of the source `my-plant`. A list is written `[a, b]`,
  nothing as `null`; all else is taken as it stands. A variable without `__` that is no setting is left alone.
- A password is best kept in a file that `password_file` names, as `TIDEWARDEN_..._PASSWORD_FILE` too.
- Relative paths are relative to the working directory.
- Unknown keys are refused. `tidewarden check -c FILE` tells everything that is wrong, with its line, and exits with 2;
  with `--connect` it also asks the brokers. `tidewarden schema config` prints the JSON Schema for your editor.

"""

_METRICS = """# Metrics

At `/metrics`, in Prometheus' text format or OpenMetrics. Besides ours there are `process_*` and `python_gc_*`.
`topic` and `partition` name a shard; for a file `topic` is its path. A stream's name is never a label. Time stamps are
Unix seconds, so an age is `time() - ...`. A ready dashboard is in `deploy/grafana`.

"""


def main(folder: str = "docs") -> None:
    """Write both pages."""
    for name, text in pages().items():
        (Path(folder) / name).write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """Name and text of every page that is made from code."""
    return {"configuration.md": _MADE + configuration(), "metrics.md": _MADE + metrics()}


# Configuration --------------------------------------------------------------------------------------------------------


def configuration() -> str:
    """The reference of all settings: a table per section, in the order in which sections first appear."""
    sections: dict[type[BaseModel], list[str]] = {}
    _collect(Settings, "", sections)
    return _CONFIGURATION + "\n".join(_section(model, paths) for model, paths in sections.items())


def _collect(model: type[BaseModel], path: str, sections: dict[type[BaseModel], list[str]]) -> None:
    if path not in (paths := sections.setdefault(model, [])):
        paths.append(path)
        for name, field in model.model_fields.items():
            below = f"{path}.{name}".lstrip(".") + (".NAME" if get_origin(field.annotation) is dict else "")
            for inner in _models(field.annotation):
                _collect(inner, below, sections)


def _section(model: type[BaseModel], paths: list[str]) -> str:
    heading = ", ".join(f"`{path}`" for path in paths if path) or "The document"
    if kind := model.model_fields.get("type"):
        heading += f", type `{get_args(kind.annotation)[0]}`"
    rows = "".join(_row(name, field) for name, field in model.model_fields.items() if name != "type")
    table = f"| key | type | default | meaning |\n|---|---|---|---|\n{rows}" if rows else ""
    return f"## {heading}\n\n{_flat(model.__doc__)}\n\n{table}"


def _row(name: str, field: FieldInfo) -> str:
    cells = (f"`{field.alias or name}`", _type(field), _default(field), _flat(field.description))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _type(field: FieldInfo) -> str:
    return " ".join([_words(field.annotation), *_limits(field.metadata)])


def _words(annotation: Any) -> str:
    """A type as an operator says it."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return " ".join([_words(inner[0]), *_limits(inner[1:])])
    if origin in (Union, types.UnionType):
        models = [each for each in inner if isinstance(each, type) and issubclass(each, BaseModel)]
        return "section" if models else ", ".join(_words(each) for each in inner)
    if origin is Literal:
        return ", ".join(f"`{each}`" for each in inner)
    if origin is list:
        return f"list of {_words(inner[0])}"
    if origin is dict:
        return f"map from name to {_words(inner[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    names = {str: "text", int: "integer", float: "number", bool: "`true` or `false`", Path: "path", SecretStr: "text"}
    return {**names, datetime: "time", type(None): "`null`"}[annotation]


def _limits(constraints: Any) -> Iterator[str]:
    for each in constraints:
        match each:
            case annotated_types.Ge():
                yield f"from {each.ge}"
            case annotated_types.Gt():
                yield f"above {each.gt}"
            case annotated_types.Le():
                yield f"up to {each.le}"
            case FieldInfo():
                yield from _limits(each.metadata)
            case _:
                continue  # patterns and our own checks: the meaning tells


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, BaseModel) or (isinstance(value, dict) and value):
        return "see below"
    plain = str(value) if isinstance(value, Path) else value
    return f"`{yaml.safe_dump(plain, default_flow_style=True).splitlines()[0]}`"


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Every section that a type mentions, however deep."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)


def _flat(text: str | None) -> str:
    return " ".join((text or "").split())


# Metrics --------------------------------------------------------------------------------------------------------------


def metrics() -> str:
    """The reference of all metrics, grouped, and of the reasons for a reject."""
    groups: dict[str, list[str]] = {}
    for each in Telemetry().described:
        labels = ", ".join(f"`{label}`" for label in each.labels) or "-"
        groups.setdefault(each.group, []).append(f"| `{each.name}` | {each.kind} | {labels} | {each.meaning} |\n")
    tables = [
        f"## {group}\n\n| name | kind | labels | meaning |\n|---|---|---|---|\n{''.join(rows)}\n"
        for group, rows in groups.items()
    ]
    return _METRICS + "".join(tables) + _reasons()


def _reasons() -> str:
    rows = "".join(
        f"| `{reason.label}` | {'yes' if reason.is_dead_letter else 'no'} | {reason.meaning} |\n" for reason in Reason
    )
    return f"## Reasons for a reject\n\n| reason | dead letter | meaning |\n|---|---|---|\n{rows}"


if __name__ == "__main__":
    main(*sys.argv[1:2])
