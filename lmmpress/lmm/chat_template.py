"""Renders conversations by the chat template of a checkpoint, which is a program of a stranger.

It runs in a process of its own with bounded time, memory and output (see `lmmpress.lmm.template_worker`).
"""

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from lmmpress.errors import UserError
from lmmpress.host.processes import environment
from lmmpress.lmm import template_worker
from lmmpress.lmm.processor import tokenizer_of

Message = dict[str, Any]
Conversation = tuple[Sequence[Message], bool]
"""Messages, and whether a prompt for the next answer follows them."""

_MOST_ADDED = 100_000  # characters that a template may add to the texts of a row
_MOST_ENDED = 10  # rows in a row that a template may end its process at before it is given up


def template_of(processor: Any) -> tuple[str, bool] | None:
    """The chat template of a checkpoint, and whether it is the processor's, which takes texts and images as parts; a
    tokenizer's takes texts alone. None if there is none; of several, the one that is named default counts."""
    tokenizer = tokenizer_of(processor)
    for owner in dict.fromkeys((processor, tokenizer)):
        found = getattr(owner, "chat_template", None)
        if isinstance(found, dict):
            found = found.get("default")
        if found:
            return str(found), owner is not tokenizer
    return None


class Renderer:
    """A process that renders by one template; it is started for the first row. Use it in a with block."""

    def __init__(self, template: str, names: dict[str, Any]) -> None:
        """`names` are further names that the template may use, such as the special tokens."""
        self._template, self._names = template, names
        self._process: subprocess.Popen[bytes] | None = None
        self._ended, self._given_up = 0, ""

    def __enter__(self) -> "Renderer":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def render(self, conversations: Sequence[Conversation]) -> list[str]:
        """The texts of the conversations of one row. UserError says why the template gives none: so it does at once for
        every row behind one whose template cannot be compiled, or has ended its process time and again."""
        if self._given_up:
            raise UserError(self._given_up)
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", template_worker.__name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment(),
            )
            try:
                self._ask({"template": self._template, "names": self._names})
            except UserError as error:
                self._given_up = str(error)
                raise
        longest = max(len(json.dumps(messages, ensure_ascii=False)) for messages, _ in conversations)
        made: list[str] = self._ask({"conversations": conversations, "most": longest + _MOST_ADDED})
        self._ended = 0
        return made

    def _ask(self, asked: dict[str, Any]) -> Any:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(asked, default=str).encode("ascii") + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = b""
        if not line:
            ended = process.wait()
            self._process = None
            self._ended += 1
            why = "it takes more than a second" if ended == -signal.SIGPROF else f"its process ended with {ended}"
            if self._ended == _MOST_ENDED:
                self._given_up = why
            raise UserError(why)
        answer = json.loads(line)
        if "reason" in answer:
            raise UserError(answer["reason"])
        return answer["made"]
