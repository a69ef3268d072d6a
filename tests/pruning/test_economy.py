"""Which economy a training gets, from sizes alone."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmmpress.pruning.economy import ROOM, choose, fits
from lmmpress.pruning.memory import Training, training_bytes
from lmmpress.settings.distillation import Distillation
from lmmpress.settings.economy import NO_ECONOMY, Economy

GB = 10**9
STUDENT = Training(held=3 * GB, trained=2 * GB, width=2, beside=GB // 2, kept=60 * GB, kept_anew=6 * GB)
"""Three billion parameters, of which two learn, computed in bfloat16."""
LADDER = (
    NO_ECONOMY,
    Economy(recompute=True),
    Economy(recompute=True, optimizer="adamw8bit"),
    Economy(recompute=True, optimizer="adamw8bit", weights="bfloat16"),
)
COUNT = st.integers(1, 10**12)
SETTINGS = st.builds(
    Distillation,
    optimizer=st.sampled_from(["auto", "adamw", "adamw8bit"]),
    weights=st.sampled_from(["auto", "float32", "bfloat16"]),
    recompute=st.sampled_from(["auto", "always", "never"]),
)


def chosen(budget: float, training: Training = STUDENT, has_torchao: bool = True, **settings: Any) -> Economy:
    found = choose(training, Distillation(**settings), round(budget), has_torchao)
    return found.model_copy(update={"why": ""})


def test_a_parameter_costs_what_its_numbers_do() -> None:
    """Of a parameter that is trained: weight, gradient and two averages, and the copy of autocast."""
    one = Training(held=256, trained=256, width=2)
    each = [training_bytes(one, way) / 256 for way in LADDER]
    assert each == [4 + 4 + 8 + 2, 4 + 4 + 8 + 2, 4 + 4 + 2 + 8 / 256 + 2, 2 + 2 + 2 + 8 / 256]
    assert training_bytes(replace(one, width=4), NO_ECONOMY) / 256 == 16, "nothing is cast"
    frozen = replace(one, trained=0)
    assert [training_bytes(frozen, way) / 256 for way in LADDER] == [4, 4, 4, 2]
    together = replace(one, processes=2)
    assert [training_bytes(together, way) / 256 - cost for way, cost in zip(LADDER, each, strict=True)] == [4, 4, 4, 2]


def test_the_first_that_fits_is_taken() -> None:
    needs = [training_bytes(STUDENT, way) for way in LADDER]
    assert sorted(needs, reverse=True) == needs
    for way, need in zip(LADDER, needs, strict=True):
        assert chosen(1.001 * need / ROOM) == way
    assert chosen(0) == LADDER[-1], "if nothing fits, what takes least"


@given(COUNT, st.floats(0, 1), st.sampled_from([2, 4]), COUNT, st.floats(0, 1), SETTINGS, COUNT, st.booleans())
def test_what_holds_for_every_training(
    held: int,
    trained: float,
    width: int,
    kept: int,
    anew: float,
    settings: Distillation,
    budget: int,
    has_torchao: bool,
) -> None:
    training = Training(held, int(held * trained), width, kept=kept, kept_anew=int(kept * anew))
    found = choose(training, settings, budget, has_torchao)
    named = settings.economy()
    # what the plan names is honoured
    assert settings.economy(found) == found
    # what the plan leaves open stays as it always was, if that fits
    if fits(training, named, budget):
        assert found.model_copy(update={"why": ""}) == named
    # more memory never asks for more economy
    more = choose(training, settings, 2 * budget, has_torchao)
    assert training_bytes(training, more) >= training_bytes(training, found)
    # a package that is missing is not chosen
    assert has_torchao or found.needs_torchao == named.needs_torchao
    # the dtype of computation stays
    assert found.weights == named.weights or width == 2
    if not fits(training, found, budget):
        assert "too much" in found.why


def test_an_explicit_setting_is_honoured_and_the_rest_follows() -> None:
    tight = 0.01 * GB
    assert chosen(tight, optimizer="adamw") == Economy(recompute=True, weights="bfloat16")
    assert chosen(tight, weights="float32") == Economy(recompute=True, optimizer="adamw8bit")
    assert chosen(tight, recompute="never") == Economy(optimizer="adamw8bit", weights="bfloat16")
    ample = 10_000 * GB
    assert chosen(ample, weights="bfloat16") == Economy(weights="bfloat16")
    assert chosen(ample, recompute="always", optimizer="adamw8bit") == Economy(recompute=True, optimizer="adamw8bit")


def test_without_torchao_the_reason_says_what_to_install() -> None:
    found = choose(STUDENT, Distillation(), GB, has_torchao=False)
    assert found.model_copy(update={"why": ""}) == Economy(recompute=True)
    assert found.why.endswith("with torchao there is more: pip install 'lmmpress[memory]'")
    assert "lmmpress[memory]" not in choose(STUDENT, Distillation(), GB, has_torchao=True).why


def test_the_reason_has_the_numbers() -> None:
    budget = round(1.001 * training_bytes(STUDENT, LADDER[1]) / ROOM)
    why = "takes 43.4Gi of 48.2Gi; with no economy it would take 93.6Gi"
    assert choose(STUDENT, Distillation(), budget).why == why


@pytest.mark.parametrize(
    ("economy", "words"),
    [
        (LADDER[0], "no economy"),
        (LADDER[1], "recomputation"),
        (LADDER[3], "recomputation, 8-bit averages, bfloat16 weights"),
    ],
)
def test_an_economy_in_words(economy: Economy, words: str) -> None:
    assert str(economy) == words
    assert economy.saves == (economy != NO_ECONOMY)


def test_plans_without_economies_keep_their_keys() -> None:
    """The defaults are not written, so names of results and runs stay those of earlier versions."""
    said = Distillation().model_dump()
    assert not {"optimizer", "weights", "recompute"} & said.keys()
    assert Distillation(optimizer="adamw8bit").model_dump() == said | {"optimizer": "adamw8bit"}
