"""The environment of the Python processes that lmmpress starts: none of them imports from the current directory.

`lmmpress.host.safe_path` explains why, and which directories are trusted.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from lmmpress.host.safe_path import named

_SAFE, _PATH = "PYTHONSAFEPATH", "PYTHONPATH"


def environment(**more: str) -> dict[str, str]:
    """The environment for a Python process and its children, with `more` variables."""
    variables = {**os.environ, _SAFE: "1"} | more
    if _PATH in variables:
        variables[_PATH] = os.pathsep.join(named(variables[_PATH]))
    return variables


@contextmanager
def inherited(**more: str) -> Iterator[None]:
    """In this context, processes that other libraries start inherit the same environment, with `more` variables."""
    before = {name: os.environ.get(name) for name in (_SAFE, _PATH, *more)}
    os.environ.update({name: value for name, value in environment(**more).items() if name in before})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
