"""The environment of Python processes that lmmpress starts: none of them imports from the current directory.

Why, and what is trusted all the same, `lmmpress.host.safe_path` tells.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from lmmpress.host.safe_path import named

_SAFE, _PATH = "PYTHONSAFEPATH", "PYTHONPATH"


def environment(**more: str) -> dict[str, str]:
    """The environment for a Python process and its children, with `more` variables."""
    made = {**os.environ, _SAFE: "1"} | more
    if _PATH in made:
        made[_PATH] = os.pathsep.join(named(made[_PATH]))
    return made


@contextmanager
def inherited(**more: str) -> Iterator[None]:
    """Within this context, processes that others start inherit such an environment, with `more` variables."""
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
