"""Values that a test knows to exist, for the type checker."""

from typing import TypeVar

Thing = TypeVar("Thing")


def certain(thing: Thing | None) -> Thing:
    """Return the value; the test fails where it is None."""
    assert thing is not None
    return thing
