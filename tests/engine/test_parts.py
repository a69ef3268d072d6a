"""The parts of a step: what each reads and passes on."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lmmpress.engine.compression import compress
from lmmpress.lmm import read_anatomy
from lmmpress.plan import parse_plan


def test_a_step_reads_the_anatomy_of_each_checkpoint_once(
    raw_plan: dict[str, Any], tmp_path: Path, trusting: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cut is chosen, applied, checked and counted on one reading; a distilled checkpoint has the cut one's anatomy,
    and is read back once to be checked."""
    stages = {"ffn": {"step": 16, "max": 16}}
    compress(parse_plan(raw_plan | {"stages": stages}), tmp_path / "warm")  # what only a process's first run reads
    before, after = tmp_path / "before", tmp_path / "after"
    read = []
    original = read_anatomy.build_on_meta

    def counting(config: dict[str, Any], auto_class: str) -> torch.nn.Module:
        read.append(auto_class)
        return original(config, auto_class)

    monkeypatch.setattr("lmmpress.lmm.read_anatomy.build_on_meta", counting)
    compress(parse_plan(raw_plan | {"stages": {}}), before)
    without_steps = len(read)
    read.clear()
    compress(parse_plan(raw_plan | {"stages": stages}), after)
    assert len(read) - without_steps == 2, "the cut checkpoint and the distilled one are read back, nothing else is"
