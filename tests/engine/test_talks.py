"""Runs on rows of several turns: which answers they learn from and judge, and which results they share in a store."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.certain import certain, one_tensor
from support.talks import TEXTS_TEMPLATE, with_template

from lmmpress.data import Split, read_split
from lmmpress.data.row import Turn
from lmmpress.engine import run_splits
from lmmpress.engine.compression import compress
from lmmpress.engine.materials import Materials
from lmmpress.engine.parts.evaluate import evaluate
from lmmpress.engine.row_checks import check_all_rows
from lmmpress.engine.run_splits import note_splits, noted_splits, splits_of
from lmmpress.errors import UserError
from lmmpress.plan import Plan, parse_plan
from lmmpress.result import ROLES
from lmmpress.store import open_store


@pytest.fixture
def talking(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Give every row of the data an earlier turn; with `chat` as messages."""

    def make(chat: bool) -> None:
        def read(*arguments: Any) -> Split:
            split = read_split(*arguments)
            rows = (replace(row, before=(Turn("标题?", row.answer),), chat=chat) for row in split.rows)
            return replace(split, rows=tuple(rows), digest=split.digest[::-1])

        monkeypatch.setattr(run_splits, "read_split", read)

    return make


@pytest.fixture
def materials(raw_plan: dict[str, Any], tmp_path: Path) -> Callable[..., Materials]:
    def make(**changes: Any) -> Materials:
        plan = parse_plan(raw_plan | changes)
        store = open_store(str(tmp_path / "store"))
        return Materials(plan, store, store.add_checkpoint(Path(plan.model)))

    return make


def digests(materials: Materials) -> list[str]:
    return [materials.digest(role) for role in ROLES]


def test_results_of_other_readings_of_the_rows_have_other_names(
    materials: Callable[..., Materials], talking: Callable[[bool], None]
) -> None:
    talking(False)
    plain = digests(materials())
    assert digests(materials(template="never")) == plain
    taught = digests(materials(turns="all"))
    assert [one == other for one, other in zip(taught, plain, strict=True)] == [
        role in ("gate", "test") for role in ROLES
    ]
    always = digests(materials(template="always"))
    assert not set(always) & set(plain)
    talking(True)
    assert digests(materials()) == always
    assert digests(materials(template="never")) == plain


@pytest.mark.parametrize("changes", [{}, {"turns": "all"}, {"template": "always"}])
def test_the_store_keeps_how_rows_are_read(
    materials: Callable[..., Materials], talking: Callable[[bool], None], changes: dict[str, Any]
) -> None:
    talking(False)
    made = materials(**changes)
    note_splits(made.store, "k", splits_of(made.plan))
    known = noted_splits(made.store, "k")
    assert digests(replace(made, splits=known)) == digests(made)
    assert ("readings" in (made.store.read_record("splits-k") or {})) == bool(changes)


def test_settings_with_their_defaults_are_no_part_of_the_run_key(raw_plan: dict[str, Any]) -> None:
    def key(**changes: Any) -> dict[str, Any]:
        return parse_plan(raw_plan | changes).key_settings()

    assert key(turns="last", template="auto") == key()
    assert not {"turns", "template"} & key().keys()
    assert key(turns="all") == key() | {"turns": "all"}
    assert key(template="never") == key() | {"template": "never"}


def test_only_last_answers_are_judged_even_on_rows_to_learn_from(
    materials: Callable[..., Materials], talking: Callable[[bool], None]
) -> None:
    talking(False)
    last, every = materials(), materials(turns="all")
    right = [evaluate(one, one.original, "distill").values for one in (last, every)]
    assert (right[0] == right[1]).all()
    assert all(len(row.earlier) == 1 for row in every.examples("distill").rows)
    assert all(not row.earlier for role in ("gate", "test") for row in every.examples(role).rows)
    again = materials(turns="all").examples("distill")  # from the store
    assert again.rows == every.examples("distill").rows
    assert torch.equal(*(one_tensor(certain(one.pixels)[[1, 0]]) for one in (again, every.examples("distill"))))


@pytest.mark.usefixtures("trusting")
def test_a_run_learns_from_every_answer(
    raw_plan: dict[str, Any], talking: Callable[[bool], None], make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    talking(True)
    model = with_template(make_checkpoint("llama"), tmp_path / "model", TEXTS_TEMPLATE)
    changes = {"model": str(model), "stages": {"ffn": {"step": 16, "max": 16}}}
    losses = []
    for turns in ("last", "all"):
        plan = parse_plan(raw_plan | changes | {"turns": turns})
        assert check_all_rows(plan, model) is not None
        losses.append(compress(plan, tmp_path / turns).steps[0].loss)
    assert losses[1][0] > losses[0][0]  # a sum over the positions of two answers instead of one


def test_the_check_before_a_run_is_one_of_that_reading(
    raw_plan: dict[str, Any], talking: Callable[[bool], None], make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    talking(True)

    def checked(**changes: Any) -> str:
        plan: Plan = parse_plan(raw_plan | {"model": str(model)} | changes)
        found = check_all_rows(plan, model)
        assert found is not None
        return found.name

    model = make_checkpoint("llama")
    names = {checked(), checked(template="never"), checked(turns="all"), checked(template="never", turns="all")}
    assert len(names) == 4
    with pytest.raises(UserError, match="template is always, but the checkpoint has no chat template"):
        checked(template="always")
