"""A plan is chosen in one way everywhere: a file, or a preset, of which --sample is the short form for one."""

import inspect
import json
from pathlib import Path

import pytest
import typer
from support.cli import refused, run

from lmmpress import presets
from lmmpress.cli import advise, kubeflow, plan
from lmmpress.cli import run as run_command
from lmmpress.cli.shared import FromPreset, Sample, one_plan
from lmmpress.errors import UserError

COMMANDS = (run_command.run, plan.plan, advise.advise, kubeflow.compile, kubeflow.submit)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
def test_every_command_that_takes_a_plan_takes_a_preset(command: object) -> None:
    taken = inspect.get_annotations(command)  # type: ignore[arg-type]
    assert (taken["from_preset"], taken["sample"]) == (FromPreset, Sample)


def test_the_help_names_every_preset() -> None:
    (option,) = FromPreset.__metadata__  # type: ignore[attr-defined]
    assert isinstance(option, typer.models.OptionInfo)
    assert option.help is not None
    assert all(name in option.help for name in presets.names())


def test_sample_is_short_for_the_preset_of_that_name() -> None:
    assert one_plan(None, None, True) == one_plan(None, "sample", False) == "sample"
    assert one_plan(None, "sample-hard", False) == "sample-hard"
    assert one_plan(Path("plan.yaml"), None, False) == Path("plan.yaml")


@pytest.mark.parametrize(
    "given", [(None, None, False), (Path("plan.yaml"), None, True), (None, "sample", True), (Path("x"), "paper", False)]
)
def test_no_plan_or_two_are_refused(given: tuple[Path | None, str | None, bool]) -> None:
    with pytest.raises(UserError, match="give one plan"):
        one_plan(*given)


def test_an_unknown_preset_is_refused_with_the_names_of_all() -> None:
    words = refused("plan", "--preset", "sample-easy")
    assert all(name in words for name in ("sample-easy", *presets.names()))


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_is_planned(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presets, "_made", lambda name: Path(name))
    sizes = json.loads(run("plan", "--preset", name, "--json"))
    assert {size["stage"].removesuffix("-2") for size in sizes} == {"original", "block", "ffn", "attention", "io"}
