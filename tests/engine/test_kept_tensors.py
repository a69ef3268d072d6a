"""What the teacher makes of rows lies in files of the store, once on the disk."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lmmpress.engine.materials import Materials
from lmmpress.errors import UserError
from lmmpress.lmm.tensor_rows import TensorRows
from lmmpress.plan import parse_plan
from lmmpress.store import open_store


@pytest.fixture
def materials(raw_plan: dict[str, Any], tmp_path: Path) -> Callable[[], Materials]:
    def make() -> Materials:
        plan, store = parse_plan(raw_plan), open_store(str(tmp_path / "store"))
        return Materials(plan, store, store.add_checkpoint(Path(plan.model)))

    return make


def of(materials: Materials, kind: str) -> TensorRows:
    found = materials.features("distill") if kind == "features" else materials.teacher_states
    assert isinstance(found, TensorRows)
    return found


def opened(materials: Materials) -> TensorRows:
    return materials.examples("distill").rows._prompts.tokens


def blobs(folder: Path) -> set[int]:
    return {path.stat().st_ino for path in (folder / "store" / "blobs").rglob("*")}


@pytest.mark.parametrize("kind", ["features", "states"])
def test_they_are_read_from_the_file_that_the_store_keeps(
    materials: Callable[[], Materials], tmp_path: Path, kind: str
) -> None:
    made, read = of(materials(), kind), of(materials(), kind)
    assert torch.equal(made.part(0, len(made)), read.part(0, len(read)))
    assert {os.fstat(one._file.fileno()).st_ino for one in (made, read)} <= blobs(tmp_path)


def test_examples_are_read_from_the_file_that_the_store_keeps(
    materials: Callable[[], Materials], tmp_path: Path
) -> None:
    """Not from the temporary file in which they were made."""
    made, read = materials(), materials()
    assert made.examples("distill").rows == read.examples("distill").rows
    assert {os.fstat(opened(one)._file.fileno()).st_ino for one in (made, read)} <= blobs(tmp_path)


@pytest.mark.parametrize("kind", ["features", "states"])
@pytest.mark.parametrize("other", [{}, {"features": torch.zeros(2, 3, 4)}, {"states": torch.zeros(2, 3)}])
def test_tensors_of_something_else_are_one_line(
    materials: Callable[[], Materials], kind: str, other: dict[str, torch.Tensor]
) -> None:
    mine = materials()
    mine.store.write_tensors(mine._cache_name(kind, mine.lessons("distill")), other)
    with pytest.raises(UserError, match="holds no tensors") as raised:
        of(mine, kind)
    assert len(raised.value.lines) == 1
