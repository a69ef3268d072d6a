"""For the type checker: what a test knows to be there."""

from typing import TypeVar

Thing = TypeVar("Thing")


def certain(thing: Thing | None) -> Thing:
    """The same; the test fails where there is none."""
    assert thing is not None
    return thing
