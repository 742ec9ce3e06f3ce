"""Settings from YAML: a mapping becomes a dataclass, and whatever does not fit is named."""

import dataclasses
import types
import typing
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

Settings = TypeVar("Settings")


def read_settings(kind: type[Settings], values: Any, where: str) -> Settings:
    """Build a settings dataclass from plain values; what is not given keeps its default.

    Args:
        kind: A dataclass whose fields all have defaults.
        values: Mapping from field names to values; nested dataclasses take nested mappings.
        where: File, and the keys that lead here, for messages.

    Raises:
        ValueError: If a key is unknown or a value has the wrong type; names file and key.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{where}: expected keys and values, found {values!r}")
    hints = typing.get_type_hints(kind)
    names = [entry.name for entry in dataclasses.fields(kind)]  # pyright: ignore[reportArgumentType]
    given: dict[str, Any] = {}
    for key, value in values.items():
        if key not in names:
            raise ValueError(f"{where}: unknown key {key!r}; expected one of {', '.join(names)}")
        given[key] = _convert(hints[key], value, f"{where}: {key}")
    try:
        settings = kind(**given)
        if callable(check := getattr(settings, "check", None)):
            check()
        return settings
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _convert(kind: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return read_settings(kind, value, where)  # pyright: ignore[reportArgumentType]
    origin = get_origin(kind)
    if origin is Literal:
        if value in get_args(kind):
            return value
        choices = ", ".join(str(choice) for choice in get_args(kind))
        raise ValueError(f"{where} is {value!r}; expected one of {choices}")
    if origin in (Union, types.UnionType):
        if value is None and type(None) in get_args(kind):
            return None
        others = [choice for choice in get_args(kind) if choice is not type(None)]
        return _convert(others[0], value, where)
    if origin is tuple and isinstance(value, list):
        return tuple(value)
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    expected = origin or kind
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
        raise ValueError(
            f"{where} is {value!r}; expected {getattr(expected, '__name__', expected)}"
        )
    return value
