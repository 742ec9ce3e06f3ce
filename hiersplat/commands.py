"""How to call the programs that belong to this environment, for lines that people copy."""

import os
import shlex
import shutil
import sys
from pathlib import Path


def command(name: str, *arguments: object) -> str:
    """Return a line that calls a program from the present folder, quoted for a shell.

    The program's name alone where the shell finds this environment's program under it; else its
    path, so that a line printed by `make` can be copied where nothing was activated.

    Example:
        >>> command("sing", "--song", "Auld Lang Syne")
        "sing --song 'Auld Lang Syne'"
    """
    return shlex.join([_callable(name), *map(str, arguments)])


def _callable(name: str) -> str:
    # Not resolved: the interpreter of a virtual environment is a link out of it.
    path = Path(sys.executable).parent / name
    found = shutil.which(name)
    if not path.exists() or (found is not None and Path(found).absolute() == path.absolute()):
        return name
    relative = os.path.relpath(path)
    return relative if len(relative) < len(str(path)) else str(path)
