"""Words for what is wrong with a configuration: *file:line: sources.plant.group: expected ..., got ...*.

Given pydantic's complaints, the settings' JSON Schema and the document that they are about; gives back one
`ConfigurationError` that tells all of them at once. Secrets are never repeated.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, cast

from pydantic_core import ErrorDetails

from detector.errors import ConfigurationError
from detector.settings.input import Document, Location, Variable

_LONGEST_VALUE = 80  # characters of a wrong value that a message repeats

_SECRETS = frozenset({"password"})


def configuration_error(
    complaints: Sequence[ErrorDetails], schema: Mapping[str, Any], document: Document
) -> ConfigurationError:
    """Translate every complaint; a single one keeps its fields, several become one line each."""
    faults = [_fault(complaint, schema, document) for complaint in complaints]
    if len(faults) == 1:
        return faults[0]
    lines = "".join(f"\n  {fault}" for fault in faults)
    return ConfigurationError(document.path, f"{len(faults)} settings are wrong{lines}")


def _fault(complaint: ErrorDetails, schema: Mapping[str, Any], document: Document) -> ConfigurationError:
    location, known = _place(complaint["loc"], schema)
    expected, got, hint = _wording(complaint, location, known)
    if complaint["type"].startswith("union_tag"):
        location = (*location, "type")
    variable = _variable(complaint["input"])
    where = f"environment variable {variable.name}" if variable is not None else document.where(location)
    return ConfigurationError(
        where, ".".join(map(str, location)) or "the document", expected=expected, got=got, hint=hint
    )


def _place(loc: Location, schema: Mapping[str, Any]) -> tuple[Location, list[str]]:
    """The path as the operator wrote it, and the words known at its end: keys of the section, or types of the union.

    Pydantic puts the chosen `type` of a union into the path; the schema tells where.
    """
    path: list[str | int] = []
    known: list[str] = []
    node = schema
    for part in loc:
        if part == "[key]":  # the name in a map is wrong, not what it names
            continue
        if types := node.get("discriminator", {}).get("mapping"):
            node = _resolved({"$ref": types[part]}, schema)
        else:
            path.append(part)
            known = list(node.get("properties", {}))
            node = _resolved(_inner(node, part), schema)
    return tuple(path), list(node.get("discriminator", {}).get("mapping", known))


def _inner(node: Mapping[str, Any], part: str | int) -> Mapping[str, Any]:
    named = [*node.get("patternProperties", {}).values(), node.get("additionalProperties"), node.get("items"), {}]
    inner = node.get("properties", {}).get(part) or next(choice for choice in named if isinstance(choice, dict))
    return cast(Mapping[str, Any], inner)


def _resolved(node: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    if "$ref" in node:
        return cast(Mapping[str, Any], schema["$defs"][node["$ref"].rpartition("/")[2]])
    return node


def _wording(complaint: ErrorDetails, location: Location, known: Sequence[str]) -> tuple[str, str | None, str | None]:
    """What was expected, what was got, and a hint."""
    context = complaint.get("ctx", {})
    match complaint["type"]:
        case "extra_forbidden":
            key = str(location[-1])
            return "a known key", repr(key), _nearest(key, known) or f"known here: {', '.join(known)}"
        case "missing":
            return "a value", "nothing", None
        case "union_tag_not_found":
            return f"one of {', '.join(known)}", "nothing", None
        case "union_tag_invalid":
            return f"one of {', '.join(known)}", repr(context["tag"]), _nearest(str(context["tag"]), known)
        case "value_error":
            return str(context["error"]).removeprefix("expected "), None, None
        case "string_pattern_mismatch":
            return f"text like {context['pattern']}", _shown(complaint["input"], location), None
        case _:
            return _expected(complaint["msg"]), _shown(complaint["input"], location), None


def _nearest(word: str, known: Sequence[str]) -> str | None:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else None


def _expected(message: str) -> str:
    """Pydantic's sentence without its beginning: "Input should be a valid integer" tells "a valid integer"."""
    message = message.removeprefix("Input should be ")
    return message[:1].lower() + message[1:]


def _shown(value: object, location: Location) -> str:
    if location and location[-1] in _SECRETS:
        return "a secret, not shown"
    if isinstance(value, dict | list):
        return f"a {'map' if isinstance(value, dict) else 'list'} of {len(value)}"
    text = repr(str(value)) if isinstance(value, str) else "null" if value is None else str(value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."


def _variable(value: object) -> Variable | None:
    """The environment variable that a wrong value came from, if one did."""
    if isinstance(value, dict):
        return next(filter(None, map(_variable, value.values())), None) if len(value) == 1 else None
    return value if isinstance(value, Variable) else None
