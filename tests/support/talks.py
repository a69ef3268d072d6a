"""Rows of several turns and pictures, and checkpoints with chat templates."""

import shutil
from dataclasses import replace
from pathlib import Path

from PIL import Image

from lmmpress.data import Row, Split
from lmmpress.data.row import Turn
from support.data import COLORS

TEXTS_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] + ': ' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
"""Writes the first and the end token itself, as templates of language models do."""

PARTS_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% if message['role'] != 'assistant' %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' '}}"
    "{% endfor %}{% else %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% generation %}{{ content['text'] + ' '}}{% endgeneration %}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
"""LLaVA 1.5's own: images first, a space behind each text, no end token."""


def pictures(folder: Path) -> tuple[str, ...]:
    """Four pictures of different colours in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, color in enumerate(COLORS.values()):
        Image.new("RGB", (16, 16), color).save(folder / f"{number}.png")
    return tuple(f"{number}.png" for number in range(len(COLORS)))


def split_of(folder: Path, *rows: Row) -> Split:
    return Split("test", folder, tuple(replace(row, line=number) for number, row in enumerate(rows, start=1)), "d" * 64)


def talk(*texts: str, shown: tuple[str, ...] = (), system: str = "", chat: bool = False) -> Row:
    """A row of questions and answers in turn."""
    turns = [Turn(*pair) for pair in zip(texts[::2], texts[1::2], strict=True)]
    last = turns.pop()
    return Row(last.question, last.answer, "talk", shown, tuple(turns), system, chat=chat)


def cut_after(row: Row, turn: int) -> Row:
    """The row as it was when a turn, counted from 0, was its last."""
    if turn == len(row.before):
        return row
    last = row.before[turn]
    return replace(row, question=last.question, answer=last.answer, before=row.before[:turn])


def with_template(checkpoint: Path, folder: Path, template: str) -> Path:
    """A copy of a checkpoint with a chat template."""
    shutil.copytree(checkpoint, folder)
    (folder / "chat_template.jinja").write_text(template, "utf-8")
    return folder
