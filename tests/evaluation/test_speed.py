"""Speed is measured at the lengths of the right answers; the lengths of the model's own answers are recorded too."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.certain import certain
from support.clocks import give_time
from support.plain import plain_tokens
from support.plans import MOMENT
from support.small_memory import no_memory

from lmmpress.data import read_split
from lmmpress.evaluation.generate import BACKENDS, generate, lengths, questions
from lmmpress.evaluation.pace import spread
from lmmpress.evaluation.speed import Times, measure_speeds, sampled
from lmmpress.evaluation.timed import Subject
from lmmpress.lmm.checkpoint import load_model, read_checkpoint
from lmmpress.lmm.examples import encode
from lmmpress.lmm.processor import load_processor, tokenizer_of
from lmmpress.plan import Evaluation
from lmmpress.progress import Said, listening
from lmmpress.result import Headline, Speed

KINDS = ("llama", "opt", "flan-t5", "llava-clip-llama", "text-glm")
END = 2
Make = Callable[..., Subject]


@pytest.fixture
def subject(make_checkpoint: Callable[..., Path], data: Path, tmp_path: Path) -> Make:
    """A tiny model with rows in the form that it needs; their questions differ in length."""

    def make(kind: str, count: int = 6) -> Subject:
        folder = tmp_path / f"data of {kind} {count}"
        folder.mkdir()
        shutil.copytree(data / "images", folder / "images")
        lines: list[str] = []
        for line in (data / "metadata.jsonl").read_text("utf-8").splitlines():
            row = json.loads(line)
            row["answer"] *= 1 + len(lines) % 3
            if kind.startswith("llava"):
                row["question"] = "<image>" + row["question"]
            if kind.startswith("text"):
                del row["file_name"]
            if row["split"] == "test" and len(lines) < count:
                lines.append(json.dumps(row))
        (folder / "metadata.jsonl").write_text("\n".join(lines), "utf-8")
        checkpoint = make_checkpoint(kind)
        model, processor = load_model(checkpoint), load_processor(checkpoint)
        examples = encode(read_split(folder, "test"), processor, read_checkpoint(checkpoint).config)
        return Subject(model, tokenizer_of(processor), examples, frozenset({END}))

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_gets_the_same_answer_in_a_batch_and_alone(
    subject: Make, make_checkpoint: Callable[..., Path], kind: str
) -> None:
    """Compared with what the processor makes of the row alone: padding in a batch has no effect."""
    one = subject(kind)
    split, ends = one.examples.split, frozenset({END})
    found = generate(one.model, questions(one.model, one.examples, range(6)), 7)
    for row, tokens, length in zip(split.rows, found.tolist(), lengths(found, ends), strict=True):
        alone = plain_tokens(one.model, load_processor(make_checkpoint(kind)), split, [row], 7)
        assert tokens[:length] == alone[0].tolist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ends", [list(range(64)), [END], None])
def test_the_number_of_tokens_is_exact_or_natural_as_requested(
    subject: Make, kind: str, ends: list[int] | None
) -> None:
    one = subject(kind)
    generating = getattr(one.model, "language_model", one.model) if kind in ("llama", "opt", "flan-t5") else one.model
    config: Any = generating.generation_config
    config.eos_token_id = ends
    config.pad_token_id = 0 if ends == [END] else None
    for rows in (range(6), [3]):
        inputs = questions(one.model, one.examples, rows)
        assert generate(one.model, inputs, 9, exactly=True).shape == (len(rows), 9)
        natural = lengths(generate(one.model, inputs, 9), frozenset(ends or []))
        assert all(length == 1 for length in natural) or ends != list(range(64))
        assert all(length == 9 for length in natural) or ends is not None


def test_answers_end_at_the_models_longest_length(subject: Make) -> None:
    """Positions of OPT are learned: there are 96, and there is no embedding for one more."""
    one = subject("opt")
    inputs = questions(one.model, one.examples, [0])
    prompt = inputs["input_ids"].shape[1]
    assert generate(one.model, inputs, 500, exactly=True).shape == (1, 96 - prompt)


def test_lengths_count_the_end_token() -> None:
    tokens = torch.tensor([[5, 2, 0, 0], [5, 6, 7, 8], [2, 0, 0, 0], [5, 6, 9, 2]])
    assert lengths(tokens, frozenset({2})) == [2, 4, 1, 4]
    assert lengths(tokens, frozenset({2, 6})) == [2, 2, 1, 2]
    assert lengths(tokens, frozenset()) == [4, 4, 4, 4]


def test_models_are_timed_on_equally_many_tokens_however_long_their_answers(
    subject: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int, bool]] = []

    def counting(model: torch.nn.Module, inputs: Any, most: int, exactly: bool = False, **_: bool) -> torch.Tensor:
        asked.append((names[model], most, exactly))
        return generate(model, inputs, most, exactly)

    monkeypatch.setattr("lmmpress.evaluation.timed.generate", counting)
    short, long = subject("llama"), subject("llama", 5)
    long = Subject(long.model, long.tokenizer, short.examples, frozenset())
    short = Subject(short.model, short.tokenizer, short.examples, frozenset(range(64)))
    names = {short.model: "short", long.model: "long"}
    give_time(monkeypatch)
    speeds = measure_speeds([short, long], Evaluation(batch_size=4, latency_samples=3, seconds=1))
    timed = {name: [most for model, most, exactly in asked if exactly and model == name] for name in ("short", "long")}
    answers = [len(row.answer) for row in short.examples.rows]
    a_pass = [max(answers[:4]), max(answers[4:])]
    timing = certain(speeds[0].timing)
    counted = len(a_pass) * timing.passes + timing.single_rows  # the calls before warm up, and stop when the time is up
    assert timed["short"][-counted:] == timed["long"][-counted:]
    assert "".join(map(str, a_pass * timing.passes)) in "".join(map(str, timed["long"]))
    singles = [answers[row] for row in spread(6)[: timing.single_rows]]
    assert timed["long"][-len(singles) :] == singles
    assert [speed.tokens for speed in speeds] == [sum(answers) / len(answers)] * 2
    assert [speed.natural_tokens for speed in speeds] == [1, 32]


def test_a_compiled_step_is_measured_beside_the_eager_one(subject: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling takes no time that counts, nothing is compiled while passes are timed, and both models are alike."""
    asked: list[tuple[int, int, bool]] = []

    def noted(model: torch.nn.Module, inputs: Any, most: int, exactly: bool = False, **how: bool) -> torch.Tensor:
        asked.append((*inputs["input_ids"].shape, how.get("compiled", False)))
        return generate(model, inputs, most, exactly, **how)

    monkeypatch.setitem(BACKENDS, "cpu", "eager")
    monkeypatch.setattr("lmmpress.evaluation.timed.generate", noted)
    give_time(monkeypatch)
    one, settings = subject("text-glm"), Evaluation(batch_size=4, latency_samples=3, seconds=1, speed="both")
    speeds = measure_speeds([one, one], settings)
    for speed in speeds:
        fast = certain(speed.compiled)
        assert (speed.way, fast.way, fast.compiled) == ("eager", "compiled", None)
        assert (fast.batch_size, fast.tokens) == (speed.batch_size, speed.tokens)
        assert [each.suffix for each in speed.ways] == ["", ", compiled"]
        assert Speed.model_validate_json(speed.model_dump_json()) == speed
    compiled = [rows for rows, _, way in asked if way]
    assert len({tuple(compiled[at : at + 3]) for at in range(0, 9, 3)}) == 3, "each number of rows is captured first"
    (alone,) = measure_speeds([one], settings.model_copy(update={"speed": "compiled"}))
    assert (alone.way, alone.compiled) == ("compiled", None)


def test_where_a_batch_does_not_fit_in_one_way_both_ways_get_smaller_ones(
    subject: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, bool]] = []

    def take_turns(_: Any, settings: Evaluation, *__: Any, compiled: bool = False) -> list[Times]:
        asked.append((settings.batch_size, compiled))
        if settings.batch_size > 2 and not compiled:
            raise no_memory()
        return []

    monkeypatch.setitem(BACKENDS, "cpu", "eager")
    monkeypatch.setattr("lmmpress.evaluation.speed.take_turns", take_turns)
    measure_speeds([subject("text-glm")], Evaluation(batch_size=4, speed="both"))
    assert asked == [(4, True), (4, False), (2, True), (2, False)]


@pytest.mark.parametrize("speed", ["compiled", "both"])
def test_where_nothing_compiles_speed_is_eager(subject: Make, speed: Any) -> None:
    lines: list[str] = []
    with listening(lambda event: lines.append(event.words) if isinstance(event, Said) else None):
        (found,) = measure_speeds([subject("text-glm", 1)], Evaluation(seconds=MOMENT, speed=speed))
    assert (found.way, found.compiled) == ("eager", None)
    assert len(lines) == 1
    assert "measured eagerly" in lines[0]


@pytest.mark.parametrize("speed", [True, False, "eager", "compiled", "both"])
def test_a_plan_says_how_speed_is_measured(speed: Any) -> None:
    assert Evaluation(speed=speed).speed is speed


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("latency_samples", [1, 2, 32])
@pytest.mark.parametrize("batch_size", [1, 64])
def test_few_rows_are_measured(subject: Make, rows: int, latency_samples: int, batch_size: int) -> None:
    settings = Evaluation(batch_size=batch_size, latency_samples=latency_samples, seconds=MOMENT)
    (speed,) = measure_speeds([subject("text-glm", rows)], settings)
    assert speed.samples_per_second > 0
    assert 0 < speed.latency_ms.p50 <= speed.latency_ms.p95
    timing = certain(speed.timing)
    assert (speed.latency_ms.p50 == speed.latency_ms.p95) == (timing.single_rows == 1)
    assert timing.of_rows == rows
    assert speed.batch_size == min(batch_size, timing.rows)


def test_rows_are_taken_evenly_over_the_split(subject: Make) -> None:
    split = subject("text-glm", 6).examples.split
    assert sampled(split, Evaluation(samples=3)).rows == (split.rows[0], split.rows[2], split.rows[4])
    assert sampled(split, Evaluation(samples=100)).rows == tuple(split.rows)


def test_what_older_versions_measured_can_be_read() -> None:
    old = {"batch_size": 32, "samples_per_second": 12.5, "latency_ms": {"p50": 3.0, "p95": 4.0}}
    assert Speed.model_validate(old).tokens is None
    assert (Speed.model_validate(old).way, Speed.model_validate(old).compiled) == ("eager", None)
    models = {"checkpoint": "c", "address": "a", "parameters": 1, "parameters_by_tower": {}}
    headline = Headline.model_validate(old | models | {"accuracy": 1.0, "accuracy_by_task": {}})
    assert headline.natural_tokens is None
    assert (certain(headline.speed).samples_per_second, certain(headline.speed).timing) == (12.5, None)


def test_a_model_whose_speed_was_not_measured_has_none() -> None:
    models = {"checkpoint": "c", "address": "a", "parameters": 1, "parameters_by_tower": {}}
    assert Headline.model_validate(models | {"accuracy": 1.0, "accuracy_by_task": {}}).speed is None
