"""A run whose speed is not measured, and the same run when it is."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.certain import certain
from support.cli import run

import lmmpress
from lmmpress import Result
from lmmpress.engine.parts import speed as part
from lmmpress.tracking.values import closing_values


def no_measuring(*_: Any) -> None:
    raise AssertionError("speed is measured")


@pytest.mark.usefixtures("trusting")
def test_a_run_leaves_speed_out_and_takes_it_up_again(
    raw_plan: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, plan = tmp_path / "out", tmp_path / "plan.yaml"
    plan.write_text(json.dumps(raw_plan | {"stages": {"ffn": {"step": 16, "max": 16}}}), "utf-8")
    with monkeypatch.context() as without:
        without.setattr(part, "in_all_ways", no_measuring)
        told = run("run", plan, "--out", out, "--no-speed")
    assert "speed was not measured" in told
    assert "samples/s" not in told
    left = Result.model_validate_json((out / "result.json").read_text("utf-8"))
    assert (left.original.speed, left.compressed.speed) == (None, None)
    assert "speed" not in left.seconds_by_part
    assert left.environment["device"] == "cpu"
    values = closing_values(left)
    assert [name for name, value in values.items() if value is None and "samples_per_second" in name]
    assert "Speed was not measured." in (out / "report.html").read_text("utf-8")

    measured = lmmpress.compress(plan, out, resume=True)
    assert measured.run_key == left.run_key, "speed is not part of a run's key"
    assert measured.compressed.checkpoint == left.compressed.checkpoint
    timing = certain(measured.compressed.timing)
    assert timing == certain(measured.original.timing).model_copy(update={"rate": timing.rate})
    assert timing.of_rows == 4
    ratio = certain(timing.ratio)
    faster = certain(measured.compressed.speed).samples_per_second / certain(measured.original.speed).samples_per_second
    assert ratio.low <= faster <= ratio.high
    values = closing_values(measured)
    assert values["speed.ratio_low"] == ratio.low
    energy = certain(measured.energy)
    named = {name: certain(getattr(energy, name)) for name in ("original", "compressed", "compression")}
    assert {name: value for name, value in values.items() if name.endswith(("_kwh.estimated", "_kwh.measured"))} == {
        f"energy.{name}_kwh.{one.kind}": one.kwh for name, one in named.items()
    }
    assert f"speed: {timing}" in measured.shown()
