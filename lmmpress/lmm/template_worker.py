"""Renders rows by a checkpoint's chat template, in a process of its own: `python -m lmmpress.lmm.template_worker`.

A template is a program of a stranger. Jinja's sandbox keeps it from files and from Python's insides, but not from
endless loops and texts without end. So this process has little memory, and the system ends it if one request takes too
much processor time (see `lmmpress.lmm.chat_template`, which starts it). It imports neither torch nor transformers.

It reads one JSON object on each line of stdin and answers each with one on stdout: first the template with the names
that it may use, then for each row what to render.
"""

import json
import re
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

_SECONDS = 1  # of processor time for one row, or for compiling the template
_MEMORY = 1 << 30  # bytes of address space of this process
_DATE = datetime(2024, 7, 26)  # what templates of Llama write where they cannot ask for the date
_LONGEST_REASON = 200


class _Generation(Extension):
    """The tag `generation`, which marks what a model writes; its content stays as it is."""

    tags = {"generation"}  # noqa: RUF012  # jinja's own form

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


class _Names(Namespace):
    """A namespace without names that begin with an underscore."""

    def __init__(*arguments: Any, **named: Any) -> None:  # as jinja's: the names may be anything, even `self`
        for name in dict(*arguments[1:], **named):
            _check_name(name)
        Namespace.__init__(*arguments, **named)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        Namespace.__setitem__(self, name, value)


def _check_name(name: object) -> None:
    if str(name).startswith("_"):
        raise jinja2.TemplateError(f"the namespace's name {name!r} begins with an underscore")


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


def _as_json(value: Any, ensure_ascii: bool = False, **how: Any) -> str:
    known = {key: how.get(key) for key in ("indent", "separators", "sort_keys")}
    return json.dumps(value, ensure_ascii=ensure_ascii, **known)  # type: ignore[arg-type]


def compiled(template: str) -> jinja2.Template:
    """The template, with the filters and functions that transformers gives chat templates. The date is always the same,
    so that a row always gives the same prompt."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _as_json
    environment.globals |= {
        "raise_exception": _refuse,
        "strftime_now": _DATE.strftime,
        "dict": lambda *arguments, **named: dict(*arguments, **named),
        "namespace": _Names,
    }
    return environment.from_string(template)


def rendered(template: jinja2.Template, names: dict[str, Any], messages: Any, asks: bool, most: int) -> str:
    """A conversation as text. ValueError if it has more than `most` characters, or what is no character."""
    parts: list[str] = []
    given = names | {"messages": messages, "add_generation_prompt": asks, "tools": None, "documents": None}
    for part in template.generate(given):
        parts.append(part)
        most -= len(part)
        if most < 0:
            raise ValueError("it writes far more than the row's texts")
    text = "".join(parts)
    if not text.isascii() and re.search("[\ud800-\udfff]", text):
        raise ValueError("it writes half of a surrogate pair, which is no character")
    return text


def _answer(work: Callable[[], Any]) -> dict[str, Any]:
    """The result of work that may take a limited time, or why there is none."""
    signal.setitimer(signal.ITIMER_PROF, _SECONDS)
    try:
        return {"made": work()}
    except Exception as error:  # the template may raise anything
        reason = (str(error).splitlines() or [""])[0][:_LONGEST_REASON]
        return {"reason": reason or type(error).__name__}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _rendered_all(template: jinja2.Template, names: dict[str, Any], asked: dict[str, Any]) -> list[str]:
    return [rendered(template, names, messages, asks, asked["most"]) for messages, asks in asked["conversations"]]


def _tell(answer: dict[str, Any]) -> None:
    sys.stdout.buffer.write(json.dumps(answer).encode("ascii") + b"\n")
    sys.stdout.buffer.flush()


def main() -> None:
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # the system ends the process, whatever it is busy with
    with suppress(OSError, ValueError):  # systems that do not know this limit
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    requests = map(json.loads, sys.stdin.buffer)
    begun = next(requests)
    made: list[jinja2.Template] = []
    _tell(_answer(lambda: made.append(compiled(begun["template"]))))
    for template in made:
        for asked in requests:
            _tell(_answer(partial(_rendered_all, template, begun["names"], asked)))


if __name__ == "__main__":
    main()
