"""Which economy a training gets, from sizes alone."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmmpress.pruning.economy import FLOOR, ROOM, Way, can_fit, choose, fits, most_saving
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
    micro_batch_size=st.sampled_from(["auto", 64]),
)


def chosen(budget: float, training: Training = STUDENT, has_torchao: bool = True, **settings: Any) -> Economy:
    found = choose(lambda _: training, Distillation(**settings), round(budget), FLOOR, has_torchao)
    return without_why(found).economy


def without_why(way: Way) -> Way:
    return replace(way, economy=way.economy.model_copy(update={"why": ""}))


def with_rows(training: Training, rows: int) -> Training:
    """A training that keeps as much for each of so many rows."""
    return replace(training, kept=rows * training.kept, kept_anew=rows * training.kept_anew)


def test_a_parameter_costs_what_its_numbers_do() -> None:
    """Of a parameter that is trained: weight, gradient and two averages, and the copy of autocast."""
    one = Training(held=256, trained=256, width=2)
    each = [training_bytes(one, way) / 256 for way in LADDER]
    assert each == [4 + 4 + 8 + 2, 4 + 4 + 8 + 2, 4 + 4 + 2 + 8 / 256 + 2, 2 + 2 + 2 + 8 / 256]
    assert training_bytes(replace(one, width=4), NO_ECONOMY) / 256 == 16, "nothing is cast"
    frozen = replace(one, trained=0)
    assert [training_bytes(frozen, way) / 256 for way in LADDER] == [4, 4, 4, 2]
    share = replace(one, shares=2)
    wanted = [(4 + 4 + 8) / 2, (4 + 4 + 8) / 2, (4 + 4 + 2 + 8 / 256) / 2, (2 + 2 + 2 + 8 / 256) / 2]
    assert [training_bytes(share, way) / 256 for way in LADDER] == wanted, "gathered weights need no copies"


def test_the_first_that_fits_is_taken() -> None:
    needs = [training_bytes(STUDENT, way) for way in LADDER]
    assert sorted(needs, reverse=True) == needs
    for way, need in zip(LADDER, needs, strict=True):
        assert chosen(1.001 * need / ROOM) == way
    assert chosen(0) == LADDER[-1], "if nothing fits, what takes least"


def test_fewer_rows_come_before_an_economy() -> None:
    """Down to FLOOR; then the economy is tried with all rows. The last one goes down to a single row."""
    each = replace(STUDENT, kept=GB, kept_anew=GB // 10)

    def way(economy: Economy, rows: int) -> Way:
        need = training_bytes(with_rows(each, rows), economy)
        found = choose(lambda rows: with_rows(each, rows), Distillation(), round(1.001 * need / ROOM), 64)
        return without_why(found)

    for rows in (64, 32, 16, FLOOR):
        assert way(NO_ECONOMY, rows) == Way(NO_ECONOMY, rows, 64)
    assert way(NO_ECONOMY, FLOOR // 2) == Way(LADDER[1], 32, 64), "that costs a third of the time, and no rounding"
    assert way(LADDER[3], 1) == Way(LADDER[3], 1, 64)
    named = choose(lambda rows: with_rows(each, rows), Distillation(micro_batch_size=64), 60 * GB, 64)
    assert (without_why(named).economy, named.rows) == (LADDER[1], 64), "the plan says how many rows"


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

    def trainings(rows: int) -> Training:
        return with_rows(training, rows)

    found = choose(trainings, settings, budget, 64, has_torchao)
    economy, named, least = found.economy, settings.economy(), most_saving(settings, width)
    # what the plan names is honoured
    assert settings.economy(economy) == economy
    assert settings.micro_batch_size == "auto" or found.rows == 64
    # what the plan leaves open stays as it always was, if that fits
    if fits(trainings(64), named, budget):
        assert without_why(found) == Way(named, 64, 64)
    # fewer rows come first, down to a floor
    if settings.micro_batch_size == "auto" and fits(trainings(FLOOR), named, budget):
        assert without_why(found).economy == named
    assert found.rows >= FLOOR or not has_torchao or without_why(found).economy == least
    # more memory never asks for more economy
    more = choose(trainings, settings, 2 * budget, 64, has_torchao)
    assert training_bytes(training, more.economy) >= training_bytes(training, economy)
    # a package that is missing is not chosen
    assert has_torchao or economy.needs_torchao == named.needs_torchao
    # the dtype of computation stays
    assert economy.weights == named.weights or width == 2
    if fits(trainings(found.rows), economy, budget):
        assert can_fit(replace(training, kept=0, kept_anew=0), settings, budget, has_torchao)
    else:
        assert "too much" in economy.why


@given(COUNT, st.floats(0, 1), st.sampled_from([2, 4]), COUNT, st.floats(0, 1), st.sampled_from(LADDER))
def test_more_shares_never_take_more(
    held: int, outside: float, width: int, kept: int, block: float, economy: Economy
) -> None:
    """Nor less than a process's share, with what it keeps."""
    largest = int(block * (held - int(outside * held)))
    shares = [
        Training(held, held, width, kept=kept, kept_anew=kept, shares=count, outside=int(outside * held), block=largest)
        for count in (2, 3, 8, 1000)
    ]
    needs = [training_bytes(one, economy) for one in shares]
    assert sorted(needs, reverse=True) == needs
    bare = training_bytes(replace(shares[0], shares=1, kept=0, kept_anew=0), economy)
    assert needs[0] >= kept + (bare - width * held) // 2


def test_an_explicit_setting_is_honoured_and_the_rest_follows() -> None:
    tight = 0.01 * GB
    assert chosen(tight, optimizer="adamw") == Economy(recompute=True, weights="bfloat16")
    assert chosen(tight, weights="float32") == Economy(recompute=True, optimizer="adamw8bit")
    assert chosen(tight, recompute="never") == Economy(optimizer="adamw8bit", weights="bfloat16")
    ample = 10_000 * GB
    assert chosen(ample, weights="bfloat16") == Economy(weights="bfloat16")
    assert chosen(ample, recompute="always", optimizer="adamw8bit") == Economy(recompute=True, optimizer="adamw8bit")


def test_without_torchao_the_reason_says_what_to_install() -> None:
    without, having = (
        choose(lambda _: STUDENT, Distillation(), GB, FLOOR, has_torchao) for has_torchao in (False, True)
    )
    assert without_why(without).economy == Economy(recompute=True)
    assert without.economy.why.endswith("with torchao there is more: pip install 'lmmpress[memory]'")
    assert "lmmpress[memory]" not in having.economy.why


def test_the_reason_has_the_numbers() -> None:
    budget = round(1.001 * training_bytes(STUDENT, LADDER[1]) / ROOM)
    whys = [choose(lambda _: STUDENT, Distillation(), budget, most).economy.why for most in (FLOOR, 64)]
    assert whys[0] == "takes 43.4Gi of 48.2Gi; with no economy it would take 93.6Gi"
    assert whys[1] == "takes 43.4Gi of 48.2Gi; with 8 rows at once it would take 93.6Gi"
    assert str(Way(LADDER[1], 1, 64)) == "recomputation, 1 row at once"


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
