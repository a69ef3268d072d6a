"""Answers that a model writes, and rows judged by its logits: each against plain `generate`, row by row."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from support.data import write_data
from support.small_memory import no_memory
from support.tiny import MODELS, config_of, generate, make_model

from lmmpress.data import Split, read_split
from lmmpress.data.facts import facts_of
from lmmpress.data.index import Index
from lmmpress.evaluation.accuracy import answered_right, divergences, right_tokens
from lmmpress.evaluation.generate import (
    BACKENDS,
    LONGEST_UNKNOWN,
    compiling,
    compiling_works,
    lengths,
    longest_answer,
    questions,
    write_answers,
)
from lmmpress.evaluation.generate import generate as ours
from lmmpress.evaluation.rounds import answers_in, writer_of
from lmmpress.evaluation.scores import scored
from lmmpress.lmm import pixels
from lmmpress.lmm.checkpoint import load_model, read_checkpoint
from lmmpress.lmm.examples import Example, Examples, encode, with_rows
from lmmpress.lmm.forward import answer_logits
from lmmpress.lmm.processor import load_processor
from lmmpress.metrics import metric_of
from lmmpress.progress import Said, listening

ENDS = frozenset({2})


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("rows") / "data", {"gate": 4})


def encoded(checkpoint: Path, rows: Path) -> Examples:
    return encode(read_split(rows, "gate"), load_processor(checkpoint), read_checkpoint(checkpoint).config)


def with_answers(examples: Examples, answers: list[list[int]]) -> Examples:
    rows = [replace(row, answer=answer) for row, answer in zip(examples.rows, answers, strict=True)]
    return with_rows(examples, rows, "of a test")


@dataclass(frozen=True)
class Asked:
    """A tiny model of which one token in nine ends an answer, and eight prompts, one of them padded."""

    model: torch.nn.Module
    inputs: dict[str, torch.Tensor]
    ends: frozenset[int]

    def plain(self, most: int) -> list[list[int]]:
        """What transformers itself answers, all rows in one batch to the end."""
        with torch.no_grad():
            ids = generate(self.model, **self.inputs, max_new_tokens=most, do_sample=False)
        return self.until_their_ends(answers_in(writer_of(self.model), ids, self.inputs["input_ids"]))

    def until_their_ends(self, tokens: torch.Tensor) -> list[list[int]]:
        return [row[:length] for row, length in zip(tokens.tolist(), lengths(tokens, self.ends), strict=True)]


def asked(name: str) -> Asked:
    seeded = torch.Generator().manual_seed(0)
    model, ids = make_model(config_of(name)), torch.randint(4, 64, (8, 9), generator=seeded)
    inputs = {"attention_mask": torch.ones_like(ids), "input_ids": ids}
    if name.startswith(("blip2", "llava")):
        ids[:, 1:5] = 3  # the places of the picture
        inputs["pixel_values"] = torch.randn(8, 3, 16, 16, generator=seeded)
    ids[1, 0] = inputs["attention_mask"][1, 0] = 0
    ends = list(range(2, 64, 9))
    writer_of(model).generation_config.eos_token_id = ends
    return Asked(model, inputs, frozenset(ends))


@pytest.mark.parametrize("name", MODELS)
def test_rows_that_have_ended_leave_and_all_answers_are_those_of_plain_generation(name: str) -> None:
    one, sizes = asked(name), list[int]()
    head = writer_of(one.model).get_output_embeddings()
    wanted = one.plain(20)
    handle = head.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    found = one.until_their_ends(ours(one.model, one.inputs, 20))
    handle.remove()
    assert found == wanted
    assert len(sizes) == max(map(len, wanted)), "no token is computed twice"
    needed = [sum(len(answer) >= step for answer in wanted) for step in range(1, len(sizes) + 1)]
    assert all(rows < 2 * least or rows == least for rows, least in zip(sizes, needed, strict=True)), (sizes, needed)


@pytest.mark.parametrize("name", ["llama", "opt", "glm", "flan-t5", "blip2-llama", "llava-clip-llama"])
def test_a_compiled_step_gives_the_tokens_of_plain_generation(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled as for a GPU, but into the operations that there are: a compiler may lack here."""
    monkeypatch.setitem(BACKENDS, "cpu", "eager")
    one = asked(name)
    with compiling(one.model):
        assert compiling_works(one.model, one.inputs, 9)
        assert hasattr(writer_of(one.model), "_compiled_call")
        assert one.until_their_ends(ours(one.model, one.inputs, 9, compiled=True)) == one.plain(9)
        shorter = ours(one.model, one.inputs, 5, compiled=True)
    assert one.until_their_ends(shorter) == one.plain(5), "also where the cache is longer than needed"


def test_where_nothing_compiles_answers_are_plain_and_a_line_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    one, lines = asked("llama"), list[str]()
    assert not compiling_works(one.model, one.inputs, 9), "no CPU compiles"
    monkeypatch.setitem(BACKENDS, "cpu", "no-such-compiler")
    with listening(lambda event: lines.append(event.words) if isinstance(event, Said) else None):
        with compiling(one.model):
            assert not compiling_works(one.model, one.inputs, 9)
        assert one.until_their_ends(ours(one.model, one.inputs, 9)) == one.plain(9)
    assert len(lines) == 1
    assert "generation is not compiled" in lines[0]


def test_many_answers_are_written_by_a_compiled_step(
    make_checkpoint: Callable[..., Path], rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All batches of one size; the last, smaller one would be compiled for its own."""
    checkpoint, how = make_checkpoint("llama"), list[tuple[int, bool]]()
    model, examples = load_model(checkpoint), encoded(checkpoint, rows)
    plain = write_answers(model, examples, range(7), 6, ENDS, batch_size=3)

    def noted(model: torch.nn.Module, inputs: Any, most: int, **way: bool) -> torch.Tensor:
        if not way.get("exactly"):
            how.append((len(inputs["input_ids"]), way["compiled"]))
        return ours(model, inputs, most, **way)

    monkeypatch.setitem(BACKENDS, "cpu", "eager")
    monkeypatch.setattr("lmmpress.evaluation.generate._WORTH_COMPILING", 18)
    monkeypatch.setattr("lmmpress.evaluation.generate.generate", noted)
    assert write_answers(model, examples, range(7), 6, ENDS, batch_size=3) == plain
    assert how == [(3, True), (3, True), (1, False)]


@pytest.mark.parametrize("fits", [0, 1])
def test_where_a_batch_does_not_fit_a_compiled_step_has_smaller_ones(
    make_checkpoint: Callable[..., Path], rows: Path, monkeypatch: pytest.MonkeyPatch, fits: int
) -> None:
    """The memory runs out at once, when it is tried whether a step compiles, or in a batch of answers."""
    checkpoint, how = make_checkpoint("llama"), list[tuple[int, bool]]()
    model, examples = load_model(checkpoint), encoded(checkpoint, rows)
    plain = write_answers(model, examples, range(7), 6, ENDS, batch_size=4)

    def small(model: torch.nn.Module, inputs: Any, most: int, **way: bool) -> torch.Tensor:
        how.append((len(inputs["input_ids"]), way["compiled"]))
        if len(how) > fits and how[-1][0] > 2:
            raise no_memory()
        return ours(model, inputs, most, **way)

    monkeypatch.setitem(BACKENDS, "cpu", "eager")
    monkeypatch.setattr("lmmpress.evaluation.generate._WORTH_COMPILING", 12)
    monkeypatch.setattr("lmmpress.evaluation.generate.generate", small)
    assert write_answers(model, examples, range(7), 6, ENDS, batch_size=4) == plain
    tried = [(4, True), (2, True)] if fits == 0 else [(4, True), (4, True)]
    assert how == [*tried, (2, True), (2, True), (2, True), (1, False)]


@pytest.mark.parametrize("kind", ["llama", "opt", "flan-t5"])
def test_answers_written_in_batches_are_those_of_each_row_alone(
    make_checkpoint: Callable[..., Path], rows: Path, kind: str
) -> None:
    checkpoint = make_checkpoint(kind)
    model, examples = load_model(checkpoint), encoded(checkpoint, rows)
    written = write_answers(model, examples, [5, 0, 3, 6], 6, ENDS, batch_size=3)
    assert set(written) == {0, 3, 5, 6}
    for row, tokens in written.items():
        inputs = questions(model, examples, [row])
        alone = generate(model, **inputs, max_new_tokens=6, do_sample=False)
        expected = alone[0].tolist()[-6:] if kind == "flan-t5" else alone[0].tolist()
        expected = expected[: expected.index(2) + 1] if 2 in expected else expected
        assert tokens == expected[-len(tokens) :]
        assert len(tokens) == 6 or tokens[-1] == 2


def test_pictures_are_decoded_by_threads_ahead_of_the_model(
    make_checkpoint: Callable[..., Path], rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = make_checkpoint("llama")
    model, examples, decoding = load_model(checkpoint), encoded(checkpoint, rows), set[int]()
    really = pixels.open_image

    def noted(split: Split, name: str) -> Any:
        decoding.add(threading.get_ident())
        return really(split, name)

    monkeypatch.setattr(pixels, "open_image", noted)
    write_answers(model, examples, range(len(examples.rows)), 2, ENDS, batch_size=2)
    assert decoding
    assert threading.get_ident() not in decoding


def test_right_answers_are_read_many_rows_at_a_time(rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A question to the index for each row takes much longer."""
    split, judge, asked = read_split(rows, "gate"), Mock(), list[str]()
    really = Index.each

    def noted(index: Index, question: str, values: Any = ()) -> Any:
        asked.append(question)
        return really(index, question, values)

    judge.examples.split, judge.texts = split, lambda rows: dict.fromkeys(rows, "red")
    facts = facts_of(split)
    monkeypatch.setattr(Index, "each", noted)
    values = scored(judge, {task: metric_of({"default": "normalised"}, task) for task in facts.tasks}, facts)
    assert len(asked) == 1
    assert values.tolist() == [row.answer == "red" for row in split.rows]


def test_an_answer_is_cut_off_where_all_but_one_in_a_hundred_right_answers_have_ended(
    make_checkpoint: Callable[..., Path], rows: Path
) -> None:
    examples = encoded(make_checkpoint("llama"), rows)
    row = examples.rows[0]

    def lengths(*counts: int) -> Examples:
        made = [Example(row.prompt, [4] * count, ()) for count in counts]
        return with_rows(examples, made, "of a test")

    assert longest_answer(lengths(*[3] * 98, 9, 40)) == 9
    assert longest_answer(lengths(*[3] * 99, 40)) == 3
    assert longest_answer(lengths(5, 0, 0)) == 5, "rows without an answer do not count"
    assert longest_answer(lengths(0, 0)) == LONGEST_UNKNOWN
    assert longest_answer(lengths(5), given=2) == 2


def test_agreement_by_one_forward_pass_is_that_of_what_two_models_write(
    make_checkpoint: Callable[..., Path], taught: Path, rows: Path
) -> None:
    """Cut-off answers agree too if all their tokens do."""
    teacher, student = load_model(make_checkpoint("llama")), load_model(taught)
    examples, projector = encoded(taught, rows), read_checkpoint(taught).projector
    everyone = range(len(examples.rows))
    for longest in (2, 6):
        written = write_answers(teacher, examples, everyone, longest, ENDS, 4)
        own = with_answers(examples, [written[row] for row in everyone])
        for model in (teacher, student):
            theirs = write_answers(model, examples, everyone, longest, ENDS, 4)
            found = answered_right(model, own, projector, None, 3, ENDS, list(everyone), cut=True)
            assert found.tolist() == [theirs[row] == written[row] for row in everyone]


def test_some_rows_are_judged_as_among_all(taught: Path, rows: Path) -> None:
    model, examples, projector = load_model(taught), encoded(taught, rows), read_checkpoint(taught).projector
    whole = answered_right(model, examples, projector, None, 4, ENDS)
    some = answered_right(model, examples, projector, None, 4, ENDS, [1, 4, 5])
    assert some.nonzero().flatten().tolist() == [row for row in (1, 4, 5) if whole[row]]


def test_right_tokens_and_divergence_are_means_over_each_answer(
    make_checkpoint: Callable[..., Path], taught: Path, rows: Path
) -> None:
    """A second implementation: a row at a time, with the definition of the divergence from the teacher to the model."""
    teacher, model = load_model(make_checkpoint("llama")), load_model(taught)
    examples, projector = encoded(taught, rows), read_checkpoint(taught).projector
    asked = [0, 2, 7]
    shares = right_tokens(model, examples, projector, None, 2, ENDS, asked)
    found = divergences(
        model,
        lambda batch: answer_logits(teacher, batch, projector),
        examples,
        projector,
        None,
        2,
        asked,
    )
    for row in asked:
        one = examples.rows[row]
        logits = []
        for each in (teacher, model):
            inputs = questions(each, examples, [row])
            ids = torch.tensor([one.prompt + one.answer])
            with torch.no_grad():
                out = each(**inputs | {"input_ids": ids, "attention_mask": torch.ones_like(ids)}).logits[0]
            logits.append(out[len(one.prompt) - 1 : -1].double())
        first = logits[1].argmax(-1)
        assert shares[row] == pytest.approx((first == torch.tensor(one.answer)).double().mean())
        p, q = (each.softmax(-1) for each in logits)
        assert float(found[row]) == pytest.approx(float((p * (p / q).log()).sum(-1).mean()), rel=1e-3)
    assert not found[[1, 3, 4, 5, 6]].any()
