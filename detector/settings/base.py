"""What every section of the configuration is made of."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

from detector.settings.input import understood

Seconds: TypeAlias = Annotated[float, Field(ge=0)]
Name: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$", max_length=64)]


class Section(BaseModel):
    """A part of the configuration: unknown keys are refused, the docstring under a key is its documentation."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _variables_are_understood(cls, given: object) -> object:
        return understood(given, cls.model_fields)
