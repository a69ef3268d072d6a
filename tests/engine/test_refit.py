"""A run whose steps refit what they cut before they distil it."""

import json
from pathlib import Path
from typing import Any

from lmmpress.engine.compression import compress
from lmmpress.lmm.checkpoint import load_model
from lmmpress.plan import parse_plan

STAGES = {"block": {"step": 1, "max": 1}, "ffn": {"step": 16, "max": 16}}


def history(folder: Path) -> list[dict[str, Any]]:
    entries = json.loads((folder / "compressed" / "COMPRESSION.json").read_text("utf-8"))["history"]
    return [entry for entry in entries if "distilled_from" in entry]


def test_a_step_that_does_not_distil_can_refit(raw_plan: dict[str, Any], tmp_path: Path, trusting: None) -> None:
    """Without epochs only the linear layers from the first that was cut change: of the step along `ffn`, not of that
    along `block`."""
    raw_plan["distillation"] = {"epochs": 0}
    plain = compress(parse_plan(raw_plan | {"stages": STAGES}), tmp_path / "plain")
    raw_plan["distillation"] |= {"refit_rows": 16}
    compress(parse_plan(raw_plan | {"stages": STAGES}), tmp_path / "refitted")
    assert history(tmp_path / "plain") == []
    (units,) = history(tmp_path / "refitted")
    before, after = (load_model(tmp_path / name / "compressed") for name in ("plain", "refitted"))
    pairs = zip(before.named_parameters(), after.parameters(), strict=True)
    changed = {name for (name, one), other in pairs if not one.equal(other)}
    assert changed == set(units["refitted"])
    assert len(changed) == 3 + 2 * 7, "the FFN of the first block of three, and all of the next two"
    assert plain.steps[0].decision == "accepted"


def test_plans_without_refitting_keep_their_keys(raw_plan: dict[str, Any]) -> None:
    plain, none, some = (
        parse_plan(raw_plan, tuple(f"distillation.{one}" for one in changes)).key_settings()
        for changes in ((), ("refit_rows=0",), ("refit_rows=8",))
    )
    assert plain == none != some
    assert "refit_rows" not in plain["distillation"]
    assert "temperature" not in plain["importance"]
