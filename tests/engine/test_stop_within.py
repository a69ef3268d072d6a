"""Steps that end their distillation early."""

from pathlib import Path
from typing import Any

import pytest

from lmmpress.engine.compression import compress
from lmmpress.errors import UserError
from lmmpress.plan import parse_plan
from lmmpress.store import open_store


@pytest.mark.usefixtures("trusting")
def test_a_step_ends_with_the_epoch_that_is_within_alpha(
    raw_plan: dict[str, Any], taught: Path, tmp_path: Path
) -> None:
    """Nearly all rows may differ: the first epoch is enough. Alpha is part of the part's name."""
    stages = {"ffn": {"step": 16, "max": 16}}
    settings = raw_plan["distillation"] | {"epochs": 3, "stop_within": True}
    shared = raw_plan | {"model": str(taught), "stages": stages, "distillation": settings}
    store = open_store(str(tmp_path / "store"))
    for number, alpha in enumerate((0.99, 0.98), start=1):
        changes = {"store": store.root_address, "tolerance": {"alpha": alpha, "on_violation": "keep"}}
        (step,) = compress(parse_plan(shared | changes), tmp_path / str(alpha)).steps
        assert len(step.loss) == 1
        assert len(list(store.objects.entries("records/distill-"))) == number


def test_other_metrics_are_refused(raw_plan: dict[str, Any]) -> None:
    changes = {"metrics": "rouge_l", "distillation": {"stop_within": True}}
    with pytest.raises(UserError, match=r"distillation\.stop_within: alpha has to be a share of rows"):
        parse_plan(raw_plan | changes)
