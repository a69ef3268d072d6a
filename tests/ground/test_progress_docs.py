"""docs/progress.md shows what is printed: the lines and the objects of a step that a test goes through."""

import json
import re

from support.paths import ROOT

from lmmpress.progress import Outlook, at_step, counter, listening, part
from lmmpress.progress.lines import as_values, in_words
from lmmpress.progress.pulse import Pulse, Report

PAGE = (ROOT / "docs" / "progress.md").read_text("utf-8")


def reports() -> list[Report]:
    """What is reported of a step whose 48 updates take 2.3 s each."""
    now, found = 0.0, list[Report]()
    pulse = Pulse(found.append, clock=lambda: now, beats=False)
    seen = Outlook("block, step 2 of 4", usual={"distill": 100.0}, later={"distill": 1805.0})
    with listening(pulse), at_step(seen), part("distill"), counter("distil", 48) as advance:
        for tenths in range(1, 48 * 23 + 1):
            now = tenths / 10
            if tenths % 23 == 0:
                advance(1)
            pulse.look()
    return found


def test_the_lines_are_those_of_a_log() -> None:
    lines = [in_words(report) for report in reports()]
    shown = re.findall(r"^block, step 2 of 4: distill.*$", PAGE, re.MULTILINE)
    assert shown == lines
    kubeflow = (ROOT / "docs" / "kubeflow.md").read_text("utf-8")
    assert any(line in kubeflow.splitlines() for line in lines)


def test_the_objects_are_those_of_a_log() -> None:
    objects = [json.loads(line) for line in re.findall(r'^\{"time".*$', PAGE, re.MULTILINE)]
    (shown,) = (one for one in objects if one.get("kind") == "progress")
    about = {key: value for key, value in shown.items() if key not in ("time", "level", "kind", "message")}
    assert (shown["message"], about) in [(in_words(one), as_values(one)) for one in reports()]
    described = re.search(r"\| key \| \|\n.*?\n\n", PAGE, re.DOTALL)
    assert described
    keys = {key for one in objects for key in one}
    assert keys | {"logger", "traceback"} == set(
        re.findall(r"`(\w+)`", re.sub(r"\| [^|]*\|$", "|", described[0], flags=re.M))
    )
