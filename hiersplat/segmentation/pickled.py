"""SAM record lists out of pickle files, without ever running what a pickle asks for.

A pickle is a program. The unpickler here knows no class or function of Python or numpy: the
few names that pickled arrays need are answered with stand-ins of our own that only collect
shape, type and bytes. Even numpy's own ``__setstate__`` is not called, since a crafted state
makes it read memory it should not. Any other name is refused.
"""

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hiersplat.segmentation.proposals import Record

_PLAIN_KINDS = "biufc"


class _Dtype:
    """Stands in for ``numpy.dtype``: a type code and a byte order, nothing else."""

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str | bytes):
            raise pickle.UnpicklingError("an array has a type that is no plain number")
        self.dtype = _plain_dtype(code.decode() if isinstance(code, bytes) else code)

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError("an array has a damaged type")
        if state[1] != "|":
            self.dtype = self.dtype.newbyteorder(state[1])


def _plain_dtype(code: str) -> np.dtype:
    try:
        dtype = np.dtype(code)
    except (TypeError, ValueError) as error:
        raise pickle.UnpicklingError(f"an array has the unknown type {code!r}") from error
    if dtype.kind not in _PLAIN_KINDS or dtype.hasobject:
        raise pickle.UnpicklingError(f"an array of type {code!r} holds more than plain numbers")
    return dtype


class _Array:
    """Stands in for an array while its state is read."""

    array: np.ndarray

    def __setstate__(self, state: Any) -> None:
        try:
            _, shape, dtype, is_fortran, content = state
            self.array = _array(content, dtype, shape, "F" if is_fortran else "C")
        except (TypeError, ValueError) as error:
            raise pickle.UnpicklingError(f"an array is damaged ({error})") from error


def _array(content: Any, dtype: Any, shape: Any, order: str = "C") -> np.ndarray:
    if isinstance(content, str):  # How protocols 0 to 2 of Python 2 write bytes.
        content = content.encode("latin1")
    if not isinstance(content, bytes | bytearray | memoryview) or not isinstance(dtype, _Dtype):
        raise pickle.UnpicklingError("an array holds more than plain numbers")
    flat = np.frombuffer(content, dtype.dtype)
    return flat.reshape(shape, order="F" if order == "F" else "C").copy()


class _Ndarray:
    """Stands in for the class ``numpy.ndarray`` where a pickle names it."""


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _from_buffer(content: Any, dtype: Any, shape: Any, order: str = "C") -> _Array:
    holder = _Array()
    holder.array = _array(content, dtype, shape, order)
    return holder


def _scalar(dtype: Any, content: Any) -> Any:
    return _array(content, dtype, ()).item()


def _encode(text: Any, encoding: Any = None) -> bytes:
    """Stands in for ``_codecs.encode``, by which old protocols write bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("refused: text in an encoding other than latin1")
    return text.encode("latin1")


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Ndarray,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
}
for _module in ("builtins", "__builtin__"):  # Python 3 and 2.
    for _kind in (set, frozenset, complex):
        _STAND_INS[_module, _kind.__name__] = _kind
    _STAND_INS[_module, "bytes"] = lambda: b""  # How old protocols write no bytes at all.
for _core in ("numpy.core", "numpy._core"):  # Before and since numpy 2.
    _STAND_INS[_core + ".multiarray", "_reconstruct"] = _reconstruct
    _STAND_INS[_core + ".multiarray", "scalar"] = _scalar
    _STAND_INS[_core + ".numeric", "_frombuffer"] = _from_buffer


class _RestrictedUnpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> Any:
        try:
            return _STAND_INS[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"refused, because it asks for {module_name}.{global_name}"
            ) from None

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("refused, because it asks for objects outside the file")


def read_pickled_records(path: Path) -> Iterator[tuple[str, list[Record]]]:
    """Yield the view names and record lists of a ``sam_cache_*.pkl``.

    The file may hold the records of one view, a list of views, or a mapping from view names.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is no pickle, asks for anything but arrays and plain values, or
            holds no record lists.
    """
    try:
        with path.open("rb") as file:
            content = _resolve(_RestrictedUnpickler(file).load(), 0)
    except (OSError, MemoryError):
        raise
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path}: {error}; only arrays and plain values are read") from error
    except Exception as error:  # A spoiled pickle fails in any way there is.
        raise ValueError(f"{path}: spoiled or no pickle ({type(error).__name__})") from error
    found = False
    for name, records in _views(content, path.stem):
        found = True
        yield name, records
    if not found:
        raise ValueError(f"{path}: holds no lists of SAM records")


def _resolve(value: Any, depth: int) -> Any:
    """Replace stand-ins by the arrays they collected."""
    if depth > 16:
        raise pickle.UnpicklingError("nested too deeply for lists of records")
    if isinstance(value, _Array):
        if not hasattr(value, "array"):
            raise pickle.UnpicklingError("an array is damaged (it has no content)")
        return value.array
    if isinstance(value, dict):
        return {key: _resolve(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_resolve(item, depth + 1) for item in value]
    return value


def _views(content: Any, name: str) -> Iterator[tuple[str, list[Record]]]:
    if isinstance(content, list) and content and all(map(_is_record, content)):
        yield name, content
    elif isinstance(content, dict):
        for key, value in content.items():
            yield from _views(value, str(key))
    elif isinstance(content, list):
        for index, value in enumerate(content):
            yield from _views(value, f"{name}[{index}]")


def _is_record(value: Any) -> bool:
    return isinstance(value, dict) and "segmentation" in value
