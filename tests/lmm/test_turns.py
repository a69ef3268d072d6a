"""Rows of several pictures and several turns: what the model reads of them, and where the loss is."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from support.certain import certain, one_tensor
from support.talks import PARTS_TEMPLATE, TEXTS_TEMPLATE, cut_after, pictures, split_of, talk, with_template

from lmmpress.data import Row, open_image, read_split
from lmmpress.distillation.loss import distillation_loss
from lmmpress.errors import UserError
from lmmpress.evaluation.accuracy import answered_right
from lmmpress.evaluation.generate import generate, questions
from lmmpress.evaluation.picture_use import rows_of_different_images, sees
from lmmpress.lmm.anatomy import Anatomy
from lmmpress.lmm.batches import make_batch
from lmmpress.lmm.checkpoint import load_model, read_checkpoint
from lmmpress.lmm.examples import Examples, check_rows, encode, read_examples
from lmmpress.lmm.forward import answer_logits, answer_states, visual_features
from lmmpress.lmm.processor import load_processor
from lmmpress.settings.distillation import Distillation

BLIP2, LLAVA, TEXT, T5 = "llama", "llava-clip-llama", "text-llama", "flan-t5"
Q = ("图片的背景颜色是什么?", "标题?", "红色?")
A = ("红色", "新品包邮", "什么")


def talks(kind: str, shown: tuple[str, ...], chat: bool) -> list[Row]:
    """Rows of one, two and three turns; with as many pictures as the kind takes."""
    rows = [
        talk(Q[0], A[0]),
        talk(Q[0], A[0], Q[1], A[1], system="标题:包邮"),
        talk(Q[0], A[0], Q[1], A[1], Q[2], A[2]),
        talk(Q[2], A[2], Q[1], A[0]),
    ]
    counts = {BLIP2: (1, 1, 1, 1), LLAVA: (1, 3, 2, 0)}.get(kind, (0, 0, 0, 0))
    return [
        replace(row, chat=chat, pictures=tuple(shown[(number + place) % 4] for place in range(count)))
        for number, (row, count) in enumerate(zip(rows, counts, strict=True))
    ]


@pytest.fixture
def checkpoint(make_checkpoint: Callable[..., Path], tmp_path: Path, kind: str, chat: bool) -> Path:
    if not chat:
        return make_checkpoint(kind)
    template = PARTS_TEMPLATE if kind == LLAVA else TEXTS_TEMPLATE
    return with_template(make_checkpoint(kind), tmp_path / "model", template)


def opened(checkpoint: Path) -> tuple[Any, Anatomy]:
    return load_processor(checkpoint), read_checkpoint(checkpoint)


def logits_of(model: torch.nn.Module, examples: Examples, anatomy: Anatomy, cached: bool = False) -> torch.Tensor:
    """Logits at all answer positions, of all rows in one batch."""
    features = visual_features(model, examples, anatomy, 2) if cached else None
    batch = make_batch(examples, list(range(len(examples.rows))), features)
    with torch.no_grad():
        return answer_logits(model, batch, anatomy.projector)


@pytest.mark.parametrize("kind", [BLIP2, LLAVA, TEXT])
@pytest.mark.parametrize("chat", [False, True])
def test_every_turn_is_learned_as_if_the_row_ended_there(
    checkpoint: Path, tmp_path: Path, kind: str, chat: bool
) -> None:
    """The packed row has, at the answer of each turn, the logits, targets and losses of the row cut after that turn."""
    processor, anatomy = opened(checkpoint)
    shown = pictures(tmp_path / "rows")
    rows = talks(kind, shown, chat)
    split = split_of(tmp_path / "rows", *rows)
    check_rows(split, processor, anatomy.config, turns="all")
    packed = encode(split, processor, anatomy.config, turns="all")
    cut = [cut_after(row, turn) for row in rows for turn in range(len(row.before) + 1)]
    apart = encode(split_of(tmp_path / "rows", *cut), processor, anatomy.config)
    model, teacher = load_model(checkpoint), load_model(checkpoint)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    batch = make_batch(packed, list(range(len(rows))))
    reference = make_batch(apart, list(range(len(cut))))
    assert torch.equal(batch.targets, reference.targets)
    assert torch.equal(batch.number, torch.arange(packed.positions))
    for cached in (False, True) if anatomy.projector else (False,):
        found, wanted = (logits_of(model, one, anatomy, cached) for one in (packed, apart))
        assert torch.allclose(found, wanted, atol=1e-5)
        others = [logits_of(teacher, one, anatomy, cached) for one in (packed, apart)]
        losses = [
            distillation_loss(student, other, batch.targets, Distillation())
            for student, other in zip((found, wanted), others, strict=True)
        ]
        assert torch.allclose(losses[0], losses[1], atol=1e-4)


@pytest.mark.parametrize("kind", [BLIP2, LLAVA, TEXT])
@pytest.mark.parametrize("chat", [False])
def test_cached_states_of_a_teacher_are_those_of_every_turn(checkpoint: Path, tmp_path: Path, kind: str) -> None:
    processor, anatomy = opened(checkpoint)
    split = split_of(tmp_path / "rows", *talks(kind, pictures(tmp_path / "rows"), chat=False))
    examples, model = encode(split, processor, anatomy.config, turns="all"), load_model(checkpoint)
    states = answer_states(model, examples, anatomy.projector, None, [[2, 0], [3, 1]])
    batch = make_batch(examples, [3, 0, 2])
    head: Any = model.get_output_embeddings()  # type: ignore[operator]
    with torch.no_grad():
        wanted = answer_logits(model, batch, anatomy.projector)
        assert torch.allclose(head(states[batch.number.numpy()]), wanted, atol=1e-5)


@pytest.mark.parametrize("kind", [BLIP2, LLAVA, TEXT])
@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("turns", ["last", "all"])
def test_generation_gets_the_prompt_that_is_scored(
    checkpoint: Path, tmp_path: Path, kind: str, chat: bool, turns: Any
) -> None:
    processor, anatomy = opened(checkpoint)
    split = split_of(tmp_path / "rows", *talks(kind, pictures(tmp_path / "rows"), chat))
    examples = encode(split, processor, anatomy.config, turns=turns)
    model, chosen = load_model(checkpoint), [2, 0, 1]
    asked, batch = questions(model, examples, chosen), make_batch(examples, chosen)
    for place, number in enumerate(chosen):
        prompt = asked["input_ids"][place][asked["attention_mask"][place].bool()].tolist()
        assert prompt == batch.inputs["input_ids"][place, : len(prompt)].tolist()
        assert examples.rows[number].prompt == prompt
    assert generate(model, asked, 3).shape[0] == len(chosen)


@pytest.mark.parametrize(("kind", "chat"), [(LLAVA, False)])
def test_only_the_last_answer_is_judged(checkpoint: Path, tmp_path: Path, kind: str) -> None:
    processor, anatomy = opened(checkpoint)
    split = split_of(tmp_path / "rows", *talks(kind, pictures(tmp_path / "rows"), chat=False))
    model = load_model(checkpoint)
    last, every = (encode(split, processor, anatomy.config, turns=turns) for turns in ("last", "all"))
    judged = every.judged()
    assert [len(row.targets) for row in judged.rows] == [len(row.answer) for row in last.rows]
    assert judged.rows == last.rows
    assert judged.pixels is every.pixels
    assert last.judged() is last
    right = [answered_right(model, one, anatomy.projector, None, 2) for one in (judged, last)]
    assert torch.equal(*right)


@pytest.mark.parametrize(("kind", "chat"), [(LLAVA, False)])
@pytest.mark.parametrize("cached", [False, True])
def test_several_pictures_are_what_the_processor_makes_of_them(checkpoint: Path, tmp_path: Path, cached: bool) -> None:
    """Rows of one to three pictures in one batch, wherever their places are, and shared between rows."""
    processor, anatomy = opened(checkpoint)
    shown = pictures(tmp_path / "rows")
    texts = {
        "<image>\n标题": ("标题", shown[:1]),
        "<image>\n<image>\n颜色": ("颜色", (shown[1], shown[0])),
        "新品<image>包邮<image>红色<image>?": ("新品<image>包邮<image>红色<image>?", (shown[2], shown[2], shown[3])),
    }
    rows = [Row(question, "红色", "t", names) for question, names in texts.values()]
    split = split_of(tmp_path / "rows", *rows)
    check_rows(split, processor, anatomy.config)
    examples, model = encode(split, processor, anatomy.config), load_model(checkpoint)
    logits = logits_of(model, examples, anatomy, cached)
    at = 0
    for number, (text, row) in enumerate(zip(texts, rows, strict=True)):
        images = [open_image(split, name) for name in row.pictures]
        plain = processor(images=images, text=text, return_tensors="pt")
        prompt = plain["input_ids"][0].tolist()
        assert examples.rows[number].prompt == prompt
        answer = examples.rows[number].answer
        ids = torch.tensor([prompt + answer])
        with torch.no_grad():
            wanted = model(input_ids=ids, pixel_values=plain["pixel_values"]).logits[0, len(prompt) - 1 : -1]
        assert torch.allclose(logits[at : at + len(answer)], wanted, atol=1e-5)
        at += len(answer)
        asked = questions(model, examples, [number])
        assert torch.equal(asked["pixel_values"], plain["pixel_values"])
        made = model.generate(**plain, max_new_tokens=3, do_sample=False)  # type: ignore[operator]
        assert torch.equal(generate(model, asked, 3), made[:, len(prompt) :])


@pytest.mark.parametrize(("kind", "chat"), [(LLAVA, False)])
def test_a_model_that_sees_several_pictures_is_found_to_see(checkpoint: Path, tmp_path: Path) -> None:
    processor, anatomy = opened(checkpoint)
    shown = pictures(tmp_path / "rows")
    rows = [Row("颜色", "红色", "t", names) for names in (shown[:2], shown[1:2], shown[1:], shown[:1])]
    split = rows_of_different_images(split_of(tmp_path / "rows", *rows))
    assert [row.pictures for row in split.rows] == [shown[:2], shown[1:2]]
    assert sees(load_model(checkpoint), split, processor, anatomy)


def test_a_model_sees_noise_where_all_pictures_of_a_data_set_are_equal(
    make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    checkpoint = make_checkpoint(BLIP2)
    processor, anatomy = opened(checkpoint)
    rows = []
    for name in ("a.png", "b.png"):
        Image.new("RGB", (16, 16), "red").save(tmp_path / name)
        rows.append({"file_name": name, "question": "颜色", "answer": "红色", "task": "t", "split": "test"})
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    split = rows_of_different_images(read_split(tmp_path, "test"))
    assert len(split.rows) == 2
    assert sees(load_model(checkpoint), split, processor, anatomy)


def test_an_encoder_reads_all_that_stands_in_front_of_the_last_answer(
    make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    processor, anatomy = opened(make_checkpoint(T5))
    shown = pictures(tmp_path / "rows")
    split = split_of(tmp_path / "rows", talk(Q[0], A[0], Q[1], A[1], shown=shown[:1], system="标题"))
    (row,) = encode(split, processor, anatomy.config).rows
    image = open_image(split, shown[0])
    assert row.prompt == processor(images=image, text=f"标题\n{Q[0]}{A[0]}\n{Q[1]}")["input_ids"][0]
    assert row.answer == [*processor.tokenizer(A[1], add_special_tokens=False)["input_ids"], 2]
    for work in (encode, check_rows):
        with pytest.raises(UserError, match=r"^turns is all, but the model's decoder reads only the last answer"):
            work(split, processor, anatomy.config, turns="all")


@pytest.mark.parametrize(
    ("kind", "row", "told"),
    [
        (
            LLAVA,
            talk("<image>颜色<image>", "红色", shown=("0.png",)),
            "holds <image> 2 times, but the row has one image",
        ),
        (
            LLAVA,
            talk("<image>颜色", "红色", shown=("0.png", "1.png")),
            "holds <image> 1 times, but the row has 2 images",
        ),
        (LLAVA, talk("标题", "红色", "<image>", "红色"), "the row's texts hold <image>, but the row has no image"),
        (LLAVA, talk("标题", "<image>", "色", "红色", shown=("0.png",)), "the answer holds <image>"),
        (BLIP2, talk("颜色", "红色", shown=("0.png", "1.png")), "the row has 2 images, but BLIP-2 takes one"),
        (BLIP2, talk("颜色", "红色", "<image>", "色", shown=("0.png",)), "row's texts hold <image>, but BLIP-2's"),
        (
            TEXT,
            talk("颜色", "红色", shown=("0.png", "1.png")),
            "the row has an image, '0.png', but the model takes text",
        ),
        (BLIP2, talk("颜色", "", "色", "红色", shown=("0.png",)), "the tokenizer makes nothing of the answer ''"),
    ],
)
def test_a_row_that_does_not_fit_is_a_one_line_error(
    make_checkpoint: Callable[..., Path], tmp_path: Path, kind: str, row: Row, told: str
) -> None:
    processor, anatomy = opened(make_checkpoint(kind))
    pictures(tmp_path)
    for work in (encode, check_rows):
        with pytest.raises(UserError) as found:
            work(split_of(tmp_path, row), processor, anatomy.config, turns="all")
        assert len(found.value.lines) == 1
        assert told in found.value.lines[0]


def test_the_whole_sequence_has_to_fit(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    processor, anatomy = opened(make_checkpoint(TEXT))
    row = talk(Q[0], A[0], Q[1], A[1])
    whole = len(encode(split_of(tmp_path, row), processor, anatomy.config).rows[0])
    for work in (encode, check_rows):
        work(split_of(tmp_path, row), processor, {"max_position_embeddings": whole})
        with pytest.raises(UserError, match=f"prompt and answer are {whole} tokens, the model takes {whole - 1}"):
            work(split_of(tmp_path, row), processor, {"max_position_embeddings": whole - 1})


def test_rows_without_an_answer_have_prompts_alone(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    processor, anatomy = opened(make_checkpoint(TEXT))
    row = talk(Q[0], A[0], Q[1], "")
    known = encode(split_of(tmp_path, replace(row, answer="红")), processor, anatomy.config, turns="all").rows[0]
    for work in (encode, check_rows):
        work(split_of(tmp_path, row), processor, anatomy.config, answered=False)
    (found,) = encode(split_of(tmp_path, row), processor, anatomy.config, answered=False, turns="all").rows
    assert (found.prompt, found.answer, found.earlier) == (known.prompt, [], known.earlier)


@pytest.mark.parametrize(("kind", "chat"), [(LLAVA, False)])
@pytest.mark.parametrize("turns", ["last", "all"])
def test_examples_come_back_from_the_store_as_they_were(checkpoint: Path, tmp_path: Path, turns: Any) -> None:
    processor, anatomy = opened(checkpoint)
    split = split_of(tmp_path / "rows", *talks(LLAVA, pictures(tmp_path / "rows"), chat=False))
    examples = encode(split, processor, anatomy.config, turns=turns)
    examples.save(tmp_path / "examples")
    again = read_examples(tmp_path / "examples", split, processor, anatomy.config)
    assert again.rows == examples.rows
    assert (again.pad, again.decoder_start) == (examples.pad, examples.decoder_start)
    assert torch.equal(*(one_tensor(certain(one.pixels)[[2, 0]]) for one in (again, examples)))


@pytest.mark.parametrize(("kind", "chat"), [(LLAVA, False)])
def test_plain_rows_are_stored_as_earlier_versions_did(checkpoint: Path, tmp_path: Path) -> None:
    processor, anatomy = opened(checkpoint)
    shown = pictures(tmp_path / "rows")
    split = split_of(tmp_path / "rows", talk(Q[0], A[0], shown=shown[:1]), talk(Q[1], A[1]))
    examples = encode(split, processor, anatomy.config)
    examples.save(tmp_path / "examples")
    stored = load_file(tmp_path / "examples")
    assert set(stored) == {"prompts", "prompt_lengths", "answers", "answer_lengths", "images", "pad", "decoder_start"}
    assert stored["images"].tolist() == [0, -1]
    assert read_examples(tmp_path / "examples", split, processor, anatomy.config).rows == examples.rows


class Joining:
    """A tokenizer that joins characters at the seams of texts, and puts a first token in front."""

    @staticmethod
    def make(tokenizer: Any) -> None:
        from tokenizers import Tokenizer, models, processors

        known = dict(sorted(tokenizer.get_vocab().items(), key=lambda one: one[1]))
        joined = {"?红": len(known), "色\n": len(known) + 1, "\n": len(known) + 2}
        raw = Tokenizer(models.BPE(known | joined, [("?", "红"), ("色", "\n")], unk_token="<unk>"))
        raw.add_special_tokens([token for token in known if token.startswith("<")])
        raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", known["<s>"])])
        tokenizer._tokenizer = raw


def test_a_tokenizer_that_joins_at_the_seams_changes_no_turn(
    make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    processor, anatomy = opened(make_checkpoint(TEXT))
    Joining.make(processor)
    config = {key: value for key, value in anatomy.config.items() if key != "vocab_size"}
    row = talk("颜色?", "红色", "标题?", "红", "标题", "新品")
    (whole,) = encode(split_of(tmp_path, row), processor, config, turns="all").rows
    assert processor("?红")["input_ids"] == [1, len(processor) - 3]
    for turn, (start, end) in enumerate(whole.earlier):
        (cut,) = encode(split_of(tmp_path, cut_after(row, turn)), processor, config).rows
        assert whole.prompt[:start] == cut.prompt
        assert whole.prompt[start:end] == cut.answer[:-1]
    assert whole.prompt.count(1) == 1
