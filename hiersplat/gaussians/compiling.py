"""How kernels are compiled: without the interpreter's lock, and cached safely.

Numba keeps machine code beside the source and throws it away when *that file* changes. A kernel has
the functions it calls from other files inlined, so the fingerprint of all kernel sources is made
part of the key; otherwise an update could leave old and new code side by side.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import njit

_SOURCES = (
    *("compiling", "lanes", "tiles", "projection", "harmonics", "blending", "weighing", "voting"),
)


def fingerprint() -> str:
    """Hash the sources of all kernels."""
    digest = hashlib.sha256()
    for name in _SOURCES:
        digest.update((Path(__file__).parent / f"{name}.py").read_bytes())
    return digest.hexdigest()


_FINGERPRINT = fingerprint()


def kernel(function: Callable | None = None, *, inline: bool = False) -> Any:
    """Compile a function on its first call; ``inline`` copies it into its callers.

    Division follows IEEE 754 instead of raising.
    """
    if function is None:
        return lambda later: kernel(later, inline=inline)
    dispatcher: Any = njit(nogil=True, cache=True, error_model="numpy", forceinline=inline)(
        function
    )
    cache = dispatcher._cache  # pyright: ignore[reportAttributeAccessIssue]
    key_of = cache._index_key
    cache._index_key = lambda signature, codegen: (*key_of(signature, codegen), _FINGERPRINT)
    return dispatcher
