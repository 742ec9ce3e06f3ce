"""Read YAML into dataclasses so that every mistake names its file, line, key and remedy.

The reader follows the annotations of the dataclasses: a key that is no field, a value of the
wrong kind or one that ``__post_init__`` refuses ends in a ``ValueError`` of the form
``scenes/desk.yaml:12: objects[2].parts[0].shapes[1].radius: expected a number, got 'wide'``.
A class with a ``KINDS`` table stands for a family; the key ``kind`` chooses the member.
"""

import dataclasses
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

import yaml

T = TypeVar("T")


class _Mistake(ValueError):
    """A mistake that already says where it is."""


def read_yaml(path: Path, cls: type[T]) -> T:
    """Read a YAML file as an instance of the dataclass ``cls``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no YAML or does not describe a ``cls``; the message names the file,
            the line, the key and what was expected.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise ValueError(f"{path}: is a folder; name the YAML file of a scene") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected a YAML text in UTF-8 ({error.reason})") from None
    return parse_yaml(text, cls, str(path))


def parse_yaml(text: str, cls: type[T], source: str) -> T:
    """Read YAML text as an instance of the dataclass ``cls``; ``source`` is named in errors.

    Raises:
        ValueError: As :func:`read_yaml`.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or "it cannot be read"
        raise ValueError(f"{source}{line}: not a YAML file ({problem})") from None
    except RecursionError:
        raise ValueError(f"{source}: nested too deeply to be a {cls.__name__.lower()}") from None
    if node is None:
        raise ValueError(f"{source}: empty; expected a mapping with {_keys_of(cls)}")
    return _Reader(source).read(node, cls, "")


def _keys_of(cls: type) -> str:
    return ", ".join(field.name for field in dataclasses.fields(cls))  # type: ignore[arg-type]


class _Reader:
    def __init__(self, source: str):
        self.source = source

    def fail(self, node: yaml.Node, path: str, message: str) -> typing.NoReturn:
        where = f"{self.source}:{node.start_mark.line + 1}"
        raise _Mistake(f"{where}: {path}: {message}" if path else f"{where}: {message}")

    def read(self, node: yaml.Node, annotation: Any, path: str) -> Any:
        origin = typing.get_origin(annotation)
        arguments = typing.get_args(annotation)
        if origin in (typing.Union, types.UnionType):
            return self.read_union(node, arguments, path)
        if origin is typing.Literal:
            return self.read_literal(node, arguments, path)
        if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
            items = self.items(node, path, "a list")
            return tuple(
                self.read(item, arguments[0], f"{path}[{i}]") for i, item in enumerate(items)
            )
        if origin is tuple:
            items = self.items(node, path, f"a list of {len(arguments)} values")
            if len(items) != len(arguments):
                message = f"expected {len(arguments)} values, got {len(items)}"
                self.fail(node, path, message)
            pairs = zip(items, arguments, strict=True)
            return tuple(
                self.read(item, kind, f"{path}[{i}]") for i, (item, kind) in enumerate(pairs)
            )
        if origin is dict:
            return {
                key: self.read(value, arguments[1], f"{path}.{key}" if path else key)
                for key, _, value in self.pairs(node, path)
            }
        if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
            return self.read_dataclass(node, annotation, path)
        return self.read_scalar(node, typing.cast(type, annotation), path)

    def items(self, node: yaml.Node, path: str, expected: str) -> list[yaml.Node]:
        if not isinstance(node, yaml.SequenceNode):
            self.fail(node, path, f"expected {expected}, got {_describe(node)}")
        return node.value

    def pairs(self, node: yaml.Node, path: str) -> list[tuple[str, yaml.Node, yaml.Node]]:
        if not isinstance(node, yaml.MappingNode):
            self.fail(node, path, f"expected a mapping, got {_describe(node)}")
        seen: set[str] = set()
        result = []
        for key_node, value in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self.fail(key_node, path, "expected a word as key")
            key = str(key_node.value)
            if key in seen:
                self.fail(key_node, f"{path}.{key}" if path else key, "given twice")
            seen.add(key)
            result.append((key, key_node, value))
        return result

    def read_union(self, node: yaml.Node, options: tuple[Any, ...], path: str) -> Any:
        is_null = isinstance(node, yaml.ScalarNode) and node.tag.endswith(":null")
        if type(None) in options and is_null:
            return None
        options = tuple(option for option in options if option is not type(None))
        # A list goes to the tuple among the options, a scalar to the scalar: so the message
        # speaks of what the user evidently meant.
        is_list = isinstance(node, yaml.SequenceNode)
        fitting = [o for o in options if (typing.get_origin(o) is tuple) == is_list] or list(
            options
        )
        for option in fitting[:-1]:
            try:
                return self.read(node, option, path)
            except _Mistake:
                continue
        return self.read(node, fitting[-1], path)

    def read_literal(self, node: yaml.Node, options: tuple[Any, ...], path: str) -> Any:
        if not isinstance(node, yaml.ScalarNode) or node.value not in options:
            self.fail(node, path, f"expected one of {', '.join(options)}, got {_describe(node)}")
        return node.value

    def read_scalar(self, node: yaml.Node, kind: type, path: str) -> Any:
        expected = {float: "a number", int: "a whole number", bool: "true or false", str: "a text"}
        if not isinstance(node, yaml.ScalarNode):
            self.fail(node, path, f"expected {expected[kind]}, got {_describe(node)}")
        if kind is str:
            if node.tag.endswith(":null"):
                self.fail(node, path, "expected a text, got nothing")
            return str(node.value)
        try:
            value = yaml.constructor.SafeConstructor().construct_object(node)
        except (yaml.YAMLError, ValueError):
            value = None
        if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
            if value != value or value in (float("inf"), float("-inf")):
                self.fail(node, path, f"expected a finite number, got {node.value}")
            return float(value)
        if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
            return value
        return self.fail(node, path, f"expected {expected[kind]}, got {_describe(node)}")

    def read_dataclass(self, node: yaml.Node, cls: type, path: str) -> Any:
        pairs = self.pairs(node, path)
        kinds: dict[str, type] | None = getattr(cls, "KINDS", None)
        if kinds is not None:
            chosen = [value for key, _, value in pairs if key == "kind"]
            if not chosen:
                self.fail(node, path, f"needs the key 'kind': one of {', '.join(kinds)}")
            kind_path = f"{path}.kind" if path else "kind"
            cls = kinds[self.read_literal(chosen[0], tuple(kinds), kind_path)]
            pairs = [pair for pair in pairs if pair[0] != "kind"]
        hints = typing.get_type_hints(cls)
        fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
        values: dict[str, Any] = {}
        for key, key_node, value in pairs:
            key_path = f"{path}.{key}" if path else key
            if key not in fields:
                self.fail(key_node, key_path, f"unknown key; expected one of {', '.join(fields)}")
            values[key] = self.read(value, hints[key], key_path)
        for name, field in fields.items():
            has_default = (
                field.default is not dataclasses.MISSING
                or field.default_factory is not dataclasses.MISSING
            )
            if name not in values and not has_default:
                self.fail(node, path, f"needs the key {name!r}")
        try:
            return cls(**values)
        except _Mistake:
            raise
        except ValueError as error:
            self.fail(node, path, str(error))


def _describe(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    if isinstance(node, yaml.SequenceNode):
        return f"a list of {len(node.value)}"
    text = str(node.value)
    return repr(text if len(text) <= 40 else text[:37] + "...") if text else "nothing"
