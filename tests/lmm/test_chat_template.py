"""Rows that are rendered by the checkpoint's chat template, which is a program of a stranger."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.talks import PARTS_TEMPLATE, TEXTS_TEMPLATE, pictures, split_of, talk, with_template

from lmmpress.data import Row, open_image
from lmmpress.errors import UserError
from lmmpress.lmm.chat_template import Renderer, template_of
from lmmpress.lmm.checkpoint import read_checkpoint
from lmmpress.lmm.examples import check_rows, encode
from lmmpress.lmm.processor import load_processor, tokenizer_of

BLIP2, LLAVA, TEXT = "llama", "llava-clip-llama", "text-llama"
TALK = ("图片的背景颜色是什么?", "红色", "标题?", "新品")
END = 2


@pytest.fixture
def templated(make_checkpoint: Callable[..., Path], tmp_path: Path) -> Callable[[str, str], Path]:
    return lambda kind, template: with_template(make_checkpoint(kind), tmp_path / "model", template)


def messages_of(row: Row, parts: bool, answered: bool) -> list[dict[str, Any]]:
    """A row as messages, written plainly; its images come first."""

    def message(role: str, text: str, images: int = 0) -> dict[str, Any]:
        if not parts:
            return {"role": role, "content": text}
        return {"role": role, "content": [{"type": "image"}] * images + [{"type": "text", "text": text}]}

    made = [message("system", row.system)] if row.system else []
    images = len(row.pictures)
    for turn in row.before:
        made += [message("user", turn.question, images), message("assistant", turn.answer)]
        images = 0
    made.append(message("user", row.question, images))
    return [*made, message("assistant", row.answer)] if answered else made


def test_a_prompt_is_what_transformers_makes_of_the_messages(
    templated: Callable[[str, str], Path], tmp_path: Path
) -> None:
    """For a processor with images in the messages."""
    checkpoint = templated(LLAVA, PARTS_TEMPLATE)
    processor, config = load_processor(checkpoint), read_checkpoint(checkpoint).config
    shown = pictures(tmp_path / "rows")
    rows = [
        talk(*TALK, shown=shown[:2], system="包邮", chat=True),
        talk(*TALK[:2], shown=shown[2:3], chat=True),
        talk("<image>\n颜色<image>", "红色", shown=(shown[1], shown[0]), chat=True),
    ]
    split = split_of(tmp_path / "rows", *rows)
    check_rows(split, processor, config)
    examples = encode(split, processor, config)
    plain = [*rows[:2], replace(rows[2], question="颜色")]
    for row, example in zip(plain, examples.rows, strict=True):
        text = processor.apply_chat_template(messages_of(row, True, False), add_generation_prompt=True)
        images = [open_image(split, name) for name in row.pictures]
        assert example.prompt == processor(images=images, text=text)["input_ids"][0]
        whole = processor.apply_chat_template(messages_of(row, True, True))
        ids = processor(images=images, text=whole.rstrip())["input_ids"][0]
        assert example.prompt + example.answer == [*ids, END]


@pytest.mark.parametrize("kind", [TEXT, BLIP2])
def test_first_and_end_token_come_once(templated: Callable[[str, str], Path], tmp_path: Path, kind: str) -> None:
    """The template writes both itself, and the tokenizer would add the first one to any text."""
    from tokenizers import processors

    checkpoint = templated(kind, TEXTS_TEMPLATE)
    processor, config = load_processor(checkpoint), read_checkpoint(checkpoint).config
    tokenizer = tokenizer_of(processor)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    shown = pictures(tmp_path / "rows")[:1] if kind == BLIP2 else ()
    row = talk(*TALK, shown=shown, system="包邮", chat=True)
    for turns in ("last", "all"):
        (example,) = encode(split_of(tmp_path / "rows", row), processor, config, turns=turns).rows
        prompt = tokenizer.apply_chat_template(
            messages_of(row, False, False), add_generation_prompt=True, return_dict=False
        )
        assert example.prompt[4 if shown else 0 :] == prompt
        assert prompt.count(1) == 1
        assert prompt.count(END) == 1  # of the earlier turn
        whole = tokenizer.apply_chat_template(messages_of(row, False, True), return_dict=False)
        assert [*prompt, *example.answer] == whole[: len(prompt) + len(example.answer)]
        assert example.answer.count(END) == 1
        assert example.answer[-1] == END


def test_the_plan_says_which_rows_are_rendered(templated: Callable[[str, str], Path], tmp_path: Path) -> None:
    checkpoint = templated(TEXT, TEXTS_TEMPLATE)
    processor, config = load_processor(checkpoint), read_checkpoint(checkpoint).config
    split = split_of(tmp_path, talk(*TALK[:2], chat=True), talk(*TALK[:2]))

    def prompts(template: Any) -> list[list[int]]:
        return [row.prompt for row in encode(split, processor, config, template=template).rows]

    plain = processor(TALK[0])["input_ids"]
    (rendered,) = {tuple(prompt) for prompt in prompts("always")}
    assert prompts("never") == [plain, plain]
    assert prompts("auto") == [list(rendered), plain]


def test_a_checkpoint_without_a_template_renders_nothing(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    checkpoint = make_checkpoint(TEXT)
    processor, config = load_processor(checkpoint), read_checkpoint(checkpoint).config
    split = split_of(tmp_path, talk(*TALK[:2], chat=True))
    assert encode(split, processor, config).rows[0].prompt == processor(TALK[0])["input_ids"]
    for work in (encode, check_rows):
        with pytest.raises(UserError, match="template is always, but the checkpoint has no chat template") as told:
            work(split, processor, config, template="always")
        assert len(told.value.lines) == 1


def test_of_several_templates_the_default_counts(make_checkpoint: Callable[..., Path]) -> None:
    tokenizer = load_processor(make_checkpoint(TEXT))
    tokenizer.chat_template = {"tool_use": "tools", "default": "text"}
    assert template_of(tokenizer) == ("text", False)
    tokenizer.chat_template = {"tool_use": "tools"}
    assert template_of(tokenizer) is None


ANSWERS = "{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}:{% endif %}"


@pytest.mark.parametrize(
    ("template", "told"),
    [
        (ANSWERS, "does not write the answer '红色' as it is, right behind the prompt for it"),
        ("{% for m in messages %}{{ m.content | replace('红', '') }}{% endfor %}", "does not write the answer '红色'"),
        (
            "{% for m in messages %}{% if loop.last %}{{ m.content }}{% endif %}{% endfor %}",
            "does not write the answer '红色'",
        ),
        ("{{ raise_exception('no system\nhere') }}", "cannot render the row: no system"),
        ("{{ messages[9].content }}", "cannot render the row: "),
        ("{% for", "cannot render the row: "),
        ("{{ messages.__class__.__mro__ }}", "cannot render the row: "),
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "more than a second"),
        ("{{ 10 ** (10 ** 9) }}", "more than a second"),
        (r"{{ '\ud800' }}" + ANSWERS, "it writes half of a surrogate pair, which is no character"),
        ("{{ 'a' * 10 ** 10 }}", "cannot render the row: MemoryError"),
        ("{% for a in range(99999) %}{{ 'a' * 1000 }}{% endfor %}", "it writes far more than the row's texts"),
    ],
)
def test_a_template_that_misbehaves_is_a_one_line_error(
    templated: Callable[[str, str], Path],
    tmp_path: Path,
    template: str,
    told: str,
) -> None:
    checkpoint = templated(TEXT, template)
    processor, config = load_processor(checkpoint), read_checkpoint(checkpoint).config
    split = split_of(tmp_path, talk(*TALK[:2], chat=True))
    for work in (encode, check_rows):
        with pytest.raises(UserError) as found:
            work(split, processor, config)
        (line,) = found.value.lines
        assert told in line
        assert line.endswith("change the row, or set template: never")


def test_images_that_a_template_leaves_out_are_missed(templated: Callable[[str, str], Path], tmp_path: Path) -> None:
    checkpoint = templated(LLAVA, PARTS_TEMPLATE.replace("<image>", ""))
    processor, config = load_processor(checkpoint), read_checkpoint(checkpoint).config
    split = split_of(tmp_path, talk(*TALK[:2], shown=pictures(tmp_path)[:2], chat=True))
    with pytest.raises(UserError, match="writes <image> 0 times and not 2 times"):
        encode(split, processor, config)


def test_earlier_turns_that_a_template_rewrites_are_no_turns_to_learn_from(
    templated: Callable[[str, str], Path], tmp_path: Path
) -> None:
    """The last turn alone may still be learned from."""
    strips = "{% for m in messages %}{% if m.role == 'user' or loop.last %}{{ m.content }}{% endif %}{% endfor %}"
    checkpoint = templated(TEXT, strips)
    processor, config = load_processor(checkpoint), read_checkpoint(checkpoint).config
    split = split_of(tmp_path, talk(*TALK, chat=True))
    assert encode(split, processor, config).rows[0].prompt == processor(TALK[0] + TALK[2])["input_ids"]
    with pytest.raises(UserError, match="does not write the answer '红色' as it is"):
        encode(split, processor, config, turns="all")


@pytest.mark.parametrize(
    "template",
    [
        "{%- for m in messages %}\n  {% if m.role == 'user' %}\n {{ m.content | tojson }}\n{% endif %}{% endfor %}\n",
        "{% set ns = namespace(x='') %}{% for m in messages %}{% set ns.x = ns.x + m.content %}{% endfor %}{{ ns.x }}",
        "{% macro say(m) %}[{{ m.role }}]{{ m.content.strip() }}{% endmacro %}{{ say(messages[0]) }}{{ eos_token }}",
        "{% for m in messages %}{% if loop.index > 2 %}{% break %}{% endif %}{{ m.content }}{% endfor %}",
        "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}{{ bos_token }}",
        "{{ messages | tojson(indent=2) }}{{ dict(a=1) }}{{ tools is none }}{{ add_generation_prompt }}",
        "{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | join(',') }}",
    ],
)
@pytest.mark.parametrize("asks", [False, True])
def test_templates_give_what_transformers_gives(
    make_checkpoint: Callable[..., Path], template: str, asks: bool
) -> None:
    tokenizer = load_processor(make_checkpoint(TEXT))
    messages = messages_of(talk(*TALK, system=" 'a' <b> "), False, True)
    wanted = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, add_generation_prompt=asks)
    with Renderer(template, tokenizer.special_tokens_map) as renderer:
        assert renderer.render([(messages, asks), (messages, asks)]) == [wanted, wanted]


def test_a_date_is_always_the_same(make_checkpoint: Callable[..., Path]) -> None:
    with Renderer("{{ strftime_now('%d %b %Y') }}", {}) as renderer:
        assert renderer.render([([], False)]) == ["26 Jul 2024"]


MESSAGES = [([{"role": "user", "content": "a"}], True)]
ENDLESS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"


def test_a_template_that_cannot_be_compiled_gives_every_row_its_reason() -> None:
    with Renderer("{% if", {}) as renderer:
        for _ in range(3):
            with pytest.raises(UserError, match="unexpected 'end of template'"):
                renderer.render(MESSAGES)


def test_a_template_that_never_ends_is_given_up_after_some_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmmpress.lmm.chat_template._MOST_ENDED", 2)
    with Renderer(ENDLESS, {}) as renderer:
        for _ in range(2):
            with pytest.raises(UserError, match="it takes more than a second"):
                renderer.render(MESSAGES)
        monkeypatch.setattr("subprocess.Popen", None)  # none is started any more
        with pytest.raises(UserError, match="it takes more than a second"):
            renderer.render(MESSAGES)
