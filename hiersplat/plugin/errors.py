"""Bad input inside ``ns-*`` commands: one line instead of a traceback.

nerfstudio's programs let exceptions through, so a missing folder would end in a page of
traceback. ``SystemExit`` with a message is the one exception that every Python program
turns into that message and a non-zero status.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from hiersplat.cache import CacheError


class InputError(SystemExit):
    """Something the user can mend; the message is one line that names the file."""


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn errors that a user can mend into one line; other errors keep their traceback."""
    try:
        yield
    except (ValueError, OSError, CacheError) as error:
        message = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"error: {message}") from error
