"""What is wrong with a variable, in words that a person can act on: pydantic's errors, without any value."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

# Keys show in errors; what looks like none may be a value that slipped in front of the colon.
_KEY = re.compile(r"[\w.-]{1,60}", re.ASCII)


@dataclass(frozen=True)
class Slip:
    """One thing that is wrong.

    Attributes:
        keys: The variable's name and the keys below it, as a person wrote them.
        place: Those of them that say where to look.
        problem: What is wrong.
        hint: What to do.
    """

    keys: tuple[str, ...]
    place: tuple[str, ...]
    problem: str
    hint: str


def explain(detail: ErrorDetails, model: type[BaseModel]) -> Slip:
    """Return what pydantic found.

    Args:
        detail: One of its errors.
        model: The model that was validated.
    """
    parts = detail["loc"]
    keys = _written(parts, or_any=detail["type"] == "extra_forbidden")
    # The same key stands in each item of a list: which of them it is, the file's outline does not tell.
    end = next((number for number, part in enumerate(parts) if isinstance(part, int)), None)
    problem, hint = _explained(detail, keys, model)
    return Slip(keys, keys if end is None else _written(parts[:end]), problem, hint)


def _explained(detail: ErrorDetails, keys: tuple[str, ...], model: type[BaseModel]) -> tuple[str, str]:
    kind, path = detail["type"], ".".join(keys)
    if kind == "extra_forbidden":
        mapping = _written(detail["loc"][:-1])
        above = ".".join(mapping)
        known = list(_model_at(mapping, model).model_fields)
        near = next(iter(get_close_matches(str(detail["loc"][-1]), known, n=1)), "")
        return (
            f"no such key{f'; did you mean {above}.{near}?' if near else ''}",
            f"write {near}" if near else f"the keys of {above} are {', '.join(known)}",
        )
    if kind == "model_type":
        form = "must be `none`, a path, or a mapping" if keys[0] == "filestore" else "must be a mapping"
        return form, f"correct {path}, as in hosts.example.yml"
    if kind == "missing":
        return "is missing", f"add {keys[-1]}, as in hosts.example.yml"
    words = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if kind == "string_type":
        return f"{words}, not a number or another kind", f'put {keys[-1]} in quotes: {keys[-1]}: "..."'
    return words, f"correct {path}"


def _written(parts: tuple[int | str, ...], *, or_any: bool = False) -> tuple[str, ...]:
    """Return the keys that a person wrote: without the branches of a union and the numbers of a list.

    Args:
        parts: Where pydantic says that it is.
        or_any: Whether the last is a person's own, whatever it looks like.
    """
    first, *below = (str(part) for part in parts)
    keys = [key for key in below if key.isidentifier() and not key.endswith("Variables")]
    if or_any and below and below[-1:] != keys[-1:] and _KEY.fullmatch(below[-1]):
        keys.append(below[-1])
    return (first, *keys)


def _model_at(keys: tuple[str, ...], model: type[BaseModel]) -> type[BaseModel]:
    for key in keys:
        model = next(_models_in(model.model_fields[key].annotation))
    return model


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)
