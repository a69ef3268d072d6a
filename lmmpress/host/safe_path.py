"""Takes the current directory off the path of a command that has just been started.

The current directory may be a stranger's: a model repository that brings its own plan, and a `torch.py` beside it.
Python puts it on the path of `python -m`, and where PYTHONPATH has an empty entry, as `PYTHONPATH=$PYTHONPATH:/there`
may leave. What a user named in PYTHONPATH, he trusts. Imports only what Python has imported when it starts.
"""

import os
import sys


def forget_current_directory() -> None:
    """Take the current directory off this process's path, where Python put it and nobody named it."""
    try:
        here = os.getcwd()
    except OSError:
        return
    if here not in [os.path.abspath(entry) for entry in named(os.environ.get("PYTHONPATH", ""))]:
        sys.path[:] = [entry for entry in sys.path if entry not in ("", here)]


def named(path: str) -> list[str]:
    """The entries of a PYTHONPATH that name something."""
    return [entry for entry in path.split(os.pathsep) if entry]
