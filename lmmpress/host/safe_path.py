"""Removes the current directory from the import path of a command that has just started.

The current directory may be untrusted, such as a model repository with a plan and a `torch.py` beside it. Python puts
the current directory on the import path for `python -m` and for an empty entry in PYTHONPATH, which
`PYTHONPATH=$PYTHONPATH:/there` can leave. Directories that the user names in PYTHONPATH are trusted. This module
imports only modules that Python has already imported at its start.
"""

import os
import sys


def forget_current_directory() -> None:
    """Remove the current directory from this process's import path, unless PYTHONPATH names it."""
    try:
        here = os.getcwd()
    except OSError:
        return
    if here not in [os.path.abspath(entry) for entry in named(os.environ.get("PYTHONPATH", ""))]:
        sys.path[:] = [entry for entry in sys.path if entry not in ("", here)]


def named(path: str) -> list[str]:
    """The entries of a PYTHONPATH that are not empty."""
    return [entry for entry in path.split(os.pathsep) if entry]
