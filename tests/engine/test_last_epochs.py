"""More epochs for the last step."""

from pathlib import Path
from typing import Any

import pytest

from lmmpress.engine.compression import compress
from lmmpress.plan import parse_plan


@pytest.mark.usefixtures("trusting")
def test_the_last_step_is_distilled_for_longer_and_the_others_stay(raw_plan: dict[str, Any], tmp_path: Path) -> None:
    stages = {"ffn": {"step": 16, "max": 16}, "io": {"step": 8, "max": 8}}
    usual = raw_plan | {"stages": stages, "store": str(tmp_path / "store")}
    longer = usual | {"distillation": usual["distillation"] | {"last_epochs": 3}}
    first = compress(parse_plan(usual), tmp_path / "usual")
    second = compress(parse_plan(longer), tmp_path / "longer")
    assert first.run_key != second.run_key
    assert [len(step.loss) for step in first.steps] == [1, 1]
    assert [len(step.loss) for step in second.steps] == [1, 3]
    assert second.steps[0].checkpoint == first.steps[0].checkpoint
    assert second.steps[0].seconds == first.steps[0].seconds, "it was not made again"
