"""How every program ends on bad input: one line that says what and where, exit status 2."""

import sys
from collections.abc import Callable
from typing import Any


def run_cli(program: Callable[..., Any]) -> None:
    """Run a typed function as a command-line program.

    Errors a user can mend (``ValueError``, ``OSError``, ``CacheError``) become one line on
    standard error and exit status 2; anything else is our bug and keeps its traceback.
    """
    import tyro

    from hiersplat.cache import CacheError

    try:
        tyro.cli(program)
    except (ValueError, OSError, CacheError) as error:
        message = " ".join(str(error).split()) or type(error).__name__
        print(f"error: {message}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(
            "interrupted; what was finished is kept and no file is half written: "
            "run the same command again",
            file=sys.stderr,
        )
        sys.exit(130)
