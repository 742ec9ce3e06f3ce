"""How to call the programs that belong to this environment, for lines that people copy."""

import os
import shutil
import sys
from pathlib import Path


def command(name: str) -> str:
    """Return what calls a program from the present folder.

    The name alone where the shell finds this environment's program under it; else its path, so
    that a line printed by `make` can be copied into a shell where nothing was activated.
    """
    # Not resolved: the interpreter of a virtual environment is a link out of it.
    path = Path(sys.executable).parent / name
    found = shutil.which(name)
    if not path.exists() or (found is not None and Path(found).absolute() == path.absolute()):
        return name
    relative = os.path.relpath(path)
    return relative if len(relative) < len(str(path)) else str(path)
