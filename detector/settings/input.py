"""What the operator wrote, before it is understood: a YAML document and the `TIDEWARDEN_` environment.

`read` gives the document with the line of every key, so that a complaint can name it. `variables` turns the
environment into the same nested shape; a pydantic-settings source each, they are merged by pydantic-settings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, get_args, get_origin

import yaml
from pydantic.fields import FieldInfo

from detector.errors import ConfigurationError

PREFIX = "TIDEWARDEN_"
DELIMITER = "__"

_DEEPEST = 16  # levels; an alias may contain itself

Location: TypeAlias = tuple[str | int, ...]


class Variable(str):
    """Text that came from the environment; remembers from which variable."""

    name: str

    @classmethod
    def of(cls, name: str, text: str) -> Variable:
        """Mark `text` as the value of the variable `name`."""
        variable = cls(text)
        variable.name = name
        return variable


@dataclass(frozen=True, slots=True)
class Document:
    """A YAML file as read."""

    path: str
    content: dict[str, Any] = field(default_factory=dict)
    lines: Mapping[Location, int] = field(default_factory=dict)
    """Where each key or item stands, counted from 1."""

    def where(self, location: Location) -> str:
        """`file:line` of the deepest part of `location` that the file holds, or the file alone."""
        for end in range(len(location), 0, -1):
            if line := self.lines.get(location[:end]):
                return f"{self.path}:{line}"
        return self.path


def read(path: Path | None) -> Document:
    """Read a YAML file; None stands for "environment only".

    Raises:
        ConfigurationError: It cannot be read, is not YAML, is no map, or says the same key twice.
    """
    if path is None:
        return Document("environment")
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(path, "cannot be read", got=error.strerror) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(path, "cannot be read", expected="UTF-8 text", got=str(error)) from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigurationError(f"{path}:{line}", "is not YAML", got=error.problem) from error
    except yaml.YAMLError as error:
        raise ConfigurationError(path, "is not YAML", got=error) from error
    if node is None or content is None:
        return Document(str(path))
    if not isinstance(content, dict):
        raise ConfigurationError(path, "the document", expected="a map of settings", got=type(content).__name__)
    if strange := [key for key in content if not isinstance(key, str)]:
        raise ConfigurationError(path, "a key of the document", expected="a word", got=strange[0])
    lines: dict[Location, int] = {}
    for location, line in _marks(node, ()):
        if location in lines:
            what = ".".join(map(str, location))
            raise ConfigurationError(f"{path}:{line}", what, expected="once", got=f"again after line {lines[location]}")
        lines[location] = line
    return Document(str(path), content, lines)


def _marks(node: yaml.Node, location: Location) -> Iterator[tuple[Location, int]]:
    if len(location) > _DEEPEST:
        return
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*location, key.value)
            yield here, key.start_mark.line + 1
            yield from _marks(value, here)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield (*location, index), value.start_mark.line + 1
            yield from _marks(value, (*location, index))


def variables(environment: Mapping[str, str], document: Document, sections: frozenset[str]) -> dict[str, Any]:
    """Nest the variables that are settings: `TIDEWARDEN_HTTP__PORT=0` becomes `{"http": {"port": "0"}}`.

    A name with `__` is always a setting, and refused later when unknown. One without is a setting only where it is
    one of `sections`: Kubernetes puts variables such as TIDEWARDEN_SERVICE_HOST into the pods beside a service.
    """
    nested: dict[str, Any] = {}
    for name in sorted(environment):
        if not name.startswith(PREFIX):
            continue
        parts = name.removeprefix(PREFIX).split(DELIMITER)
        if len(parts) == 1 and parts[0].lower() not in sections:
            continue
        place = nested
        path = _keys(parts, document.content)
        for key in path[:-1]:
            inner = place.get(key)
            place[key] = place = inner if isinstance(inner, dict) else {}
        place[path[-1]] = Variable.of(name, environment[name])
    return nested


def _keys(parts: list[str], content: object) -> list[str]:
    """Find the file's own spelling of each part, so that `MY_PLANT` reaches a source called `my-plant`."""
    keys = []
    for part in parts:
        known = content if isinstance(content, dict) else {}
        spelt = {str(key).lower().replace("-", "_"): str(key) for key in known}
        keys.append(spelt.get(part.lower().replace("-", "_"), part.lower()))
        content = known.get(keys[-1])
    return keys


def understood(given: object, fields: Mapping[str, FieldInfo]) -> object:
    """Replace variables that are not to be taken as text: `null` is nothing, `[a, b]` a list where one is wanted."""
    if not isinstance(given, dict):
        return given
    return {
        key: _understood(value, fields.get(key)) if isinstance(value, Variable) else value
        for key, value in given.items()
    }


def _understood(variable: Variable, wanted: FieldInfo | None) -> object:
    if variable == "null":
        return None
    kinds = (wanted.annotation, *get_args(wanted.annotation)) if wanted else ()
    if not variable.startswith("[") or not any(get_origin(kind) is list for kind in kinds):
        return variable
    try:
        return yaml.safe_load(variable)
    except yaml.YAMLError:
        return variable  # not a list: told with the other faults
