"""What tests of parts in several processes share."""

from collections.abc import Iterator

import pytest
from support.forks import Forks, loaded


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Forks of a process that has loaded what a part needs."""
    with Forks("support.ranks", *loaded("transformers", "accelerate")) as forks:
        yield forks
