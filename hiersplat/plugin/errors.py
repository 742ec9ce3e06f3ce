"""Bad input inside ``ns-*`` commands: one line instead of a traceback.

nerfstudio's programs let exceptions through, so a missing folder would end in a page of
traceback. ``SystemExit`` is the one exception that every Python program ends with quietly.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from hiersplat.cache import CacheError


class InputError(SystemExit):
    """Something the user can mend: one line on standard error that names the file, status 2."""

    def __init__(self, message: str) -> None:
        """Print the message, which Python does only for statuses that are not numbers."""
        super().__init__(message)
        self.code = 2
        print(message, file=sys.stderr)  # noqa: T201  (the one line that a user is left with)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn errors that a user can mend into one line; other errors keep their traceback."""
    try:
        yield
    except (ValueError, OSError, CacheError) as error:
        message = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"error: {message}") from error
