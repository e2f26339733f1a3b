"""What is compared: keys of the training configuration, the values of each, and the combinations that can be built.

    over = parse(["cell,layers", "hidden=16,32"])      # {"model.cell": ["gru", ...], "model.layers": [1, 2], ...}
    grid = combine(settings, over)                     # those that the configuration accepts, and why not the others

A key of `model` may be named without its section. A key without values is tried with all words that it takes, or with
the numbers of a table (training/settings/compare.py).
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from detector.errors import ConfigurationError
from training.cells import CELLS
from training.settings import TrainSettings
from training.settings.compare import WORTH_TRYING
from training.shapes import SHAPES

Values: TypeAlias = dict[str, Any]
"""A value for every key that is compared."""

_REGISTRIES: dict[str, Sequence[str]] = {"model.cell": tuple(CELLS), "model.shape": tuple(SHAPES)}
_SAME_FOR_ALL = {"fit.validation_share", "fit.threads", "fit.device"}  # they change the judge, or its watch
_OPTION = "--over"


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A combination that the configuration refuses."""

    values: Values
    reason: str


@dataclass(frozen=True, slots=True)
class Grid:
    """All combinations of values."""

    candidates: list[Values]
    left_out: list[LeftOut]


def parse(words: Sequence[str]) -> dict[str, list[Any]]:
    """Read what `--over` was given.

    Args:
        words: `key`, `key=value,value`, several of them with commas between.

    Raises:
        ConfigurationError: a key is not known, stands there twice or has no values.
    """
    known, over = _known_keys(), dict[str, list[Any]]()
    for name, texts in _split(words, known):
        key = _key(name, known)
        if key in over:
            raise ConfigurationError(_OPTION, key, expected="each key once", got="it twice")
        over[key] = _distinct(key, [yaml.safe_load(text) for text in texts]) if texts else _worth_trying(key, known)
    if not over:
        raise ConfigurationError(_OPTION, "nothing to compare", expected="keys, such as cell,layers,hidden=16,32")
    return over


def _split(words: Sequence[str], known: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Keys, each with the texts of its values; after `key=`, what is no key is one more value of it."""
    name, texts = "", list[str]()
    for part in (part.strip() for word in words for part in word.split(",")):
        key, sign, text = part.partition("=")
        if texts and not sign and not _is_known(part, known):
            texts.append(part)
            continue
        if name:
            yield name, texts
        name, texts = key.strip(), [text] if sign else []
    if name:
        yield name, texts


def _known_keys() -> dict[str, Any]:
    """Every key that may be compared, with its type."""
    keys = _keys_of(TrainSettings)
    return {key: kind for key, kind in keys if key.startswith(("model.", "fit.")) and key not in _SAME_FOR_ALL}


def _keys_of(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _keys_of(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, field.annotation


def _is_known(name: str, known: Mapping[str, Any]) -> bool:
    return name in known or f"model.{name}" in known


def _key(name: str, known: Mapping[str, Any]) -> str:
    """The key in full. Raises ConfigurationError with the nearest one that is known."""
    if _is_known(name, known):
        return name if name in known else f"model.{name}"
    if name in dict(_keys_of(TrainSettings)):
        expected = "a key of model or fit that leaves data and judge as they are"
        raise ConfigurationError(_OPTION, name, expected=expected, got="one that would change what is measured")
    by_name = {word: key for key in known for word in (key.rpartition(".")[2], key)}
    near = difflib.get_close_matches(name, by_name, n=1, cutoff=0.5)
    hint = f"did you mean {by_name[near[0]]}?" if near else "docs/training.md lists the keys"
    raise ConfigurationError(_OPTION, name, expected="a key of the training configuration", got=repr(name), hint=hint)


def _distinct(key: str, values: list[Any]) -> list[Any]:
    if len({repr(value) for value in values}) < len(values):
        raise ConfigurationError(_OPTION, key, expected="each value once", got=", ".join(map(str, values)))
    return values


def _worth_trying(key: str, known: Mapping[str, Any]) -> list[Any]:
    values = WORTH_TRYING.get(key) or _REGISTRIES.get(key) or _words(known[key])
    if not values:
        raise ConfigurationError(_OPTION, key, expected="its values", got="none", hint=f"--over {key}=first,second")
    return list(values)


def _words(kind: Any) -> tuple[Any, ...]:
    """The words that a key takes; nothing where it takes numbers, or any text."""
    if kind is bool:
        return (False, True)
    if get_origin(kind) is Literal:
        return get_args(kind)
    if get_origin(kind) in (Union, UnionType):
        inner = [one for one in get_args(kind) if one is not NoneType]
        words = _words(inner[0]) if len(inner) == 1 else ()
        return (None, *words) if words and NoneType in get_args(kind) else words
    return ()


def combine(settings: TrainSettings, over: Mapping[str, Sequence[Any]]) -> Grid:
    """All combinations; those that the configuration refuses are left out, with the reason.

    Raises:
        ConfigurationError: a value is refused in every combination, or too few are left to compare.
    """
    grid = Grid([], [])
    for chosen in itertools.product(*over.values()):
        values = dict(zip(over, chosen, strict=True))
        try:
            apply(settings, values)
            grid.candidates.append(values)
        except ConfigurationError as error:
            grid.left_out.append(LeftOut(values, str(error).removeprefix(f"{_OPTION}: ")))
    for key, value in ((key, value) for key, values in over.items() for value in values):
        if not any(candidate[key] == value for candidate in grid.candidates):
            reason = next(one.reason for one in grid.left_out if one.values[key] == value)
            raise ConfigurationError(_OPTION, f"{key}={value}: {reason}")
    if len(grid.candidates) < 2:
        got = f"{next(iter(over))}={next(iter(over.values()))[0]} alone"
        raise ConfigurationError(_OPTION, "nothing to compare", expected="two candidates at least", got=got)
    return grid


def apply(settings: TrainSettings, values: Values) -> TrainSettings:
    """The configuration of a candidate. Raises ConfigurationError where it is none."""
    document = settings.model_dump(mode="json")
    for key, value in values.items():
        *parents, last = key.split(".")
        section = document
        for parent in parents:
            section = section[parent]
        section[last] = value
    try:
        return TrainSettings.model_validate(document)
    except ValidationError as error:
        raise _refused(error) from None


def _refused(error: ValidationError) -> ConfigurationError:
    complaint = error.errors()[0]
    where = ".".join(map(str, complaint["loc"]))
    expected = complaint["msg"].removeprefix("Value error, ").removeprefix("Input should be ").removeprefix("expected ")
    got = None if complaint["type"] == "value_error" else repr(complaint["input"])
    return ConfigurationError(_OPTION, where, expected=expected, got=got)


def told(values: Mapping[str, Any]) -> str:
    """A candidate in words: `gru, layers 1, hidden 16`; a shape without cells is told without one."""
    shape = values.get("model.shape")
    silent = {"model.cell"} if shape and "cell" not in SHAPES[shape].uses else set()
    return ", ".join(_told(key.rpartition(".")[2], value) for key, value in values.items() if key not in silent)


def _told(name: str, value: Any) -> str:
    return str(value) if name in ("cell", "shape") else f"{name} {'none' if value is None else value}"
