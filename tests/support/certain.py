"""For the type checker: values that a test knows to exist."""

from typing import TypeVar

Thing = TypeVar("Thing")


def certain(thing: Thing | None) -> Thing:
    """The value; the test fails if it is None."""
    assert thing is not None
    return thing
