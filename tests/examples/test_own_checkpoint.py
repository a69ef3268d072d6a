"""The example for ML engineers, run as they run it: its own process, on tiny models."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from support.examples import run_example

import lmmpress

QUICK = [
    "--set",
    "tolerance={alpha: 0.9, allow_zero: true}",
    "--set",
    "evaluation={samples: 4, latency_samples: 2, seconds: 0.1}",
]


@pytest.mark.parametrize("kind", ["llama", "llava-clip-llama"])
def test_a_checkpoint_is_compressed_and_opened(
    make_checkpoint: Callable[..., Path], data: Path, tmp_path: Path, kind: str
) -> None:
    """A BLIP-2 and a LLaVA, of random weights; a model that has learned nothing answers something, too."""
    model = make_checkpoint(kind)
    said = run_example("own_checkpoint.py", model, data, tmp_path / "out", *QUICK)
    before, after = lmmpress.inspect(model), lmmpress.inspect(tmp_path / "out" / "compressed")
    result = lmmpress.Result.model_validate_json((tmp_path / "out" / "result.json").read_text("utf-8"))
    assert str(before) in said
    assert str(result) in said
    assert f"<{len(result.steps)} planned steps: " in said
    assert [step.decision for step in result.steps] == ["accepted"] * 4
    assert (after.widths["language"]["block"], after.widths["language"]["ffn"]) == (2, 32)
    (by_transformers,) = re.findall(r"^plain transformers: '(.*)'$", said, re.MULTILINE)
    answers = re.findall(r"^  '.*?': '(.*)', wanted '.+'$", said, re.MULTILINE)
    assert len(answers) == 4
    assert answers[0] == by_transformers


def test_what_is_wrong_is_one_line(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    said = run_example("own_checkpoint.py", make_checkpoint("llama"), tmp_path / "none", tmp_path / "out", code=1)
    assert re.search(r"^error: .*none.*$", said, re.MULTILINE)
    assert "Traceback" not in said
