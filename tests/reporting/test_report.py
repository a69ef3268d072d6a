"""The report is one HTML page that needs no other file and shows the numbers of the result."""

import json
import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from support.parsed_page import Page
from support.results import TOWERS, both_ways, fabricated, timed, without_speed

from lmmpress.errors import UserError
from lmmpress.plan import parse_plan
from lmmpress.reporting import report_of, write_report
from lmmpress.reporting.scales import log_ticks, round_ticks, spread
from lmmpress.reporting.words import count, duration, percent, points, short_count
from lmmpress.result import Result

PLAN = parse_plan({"model": "/models/original", "data": "/data/adverts", "stages": {"block": {"step": 1, "max": 3}}})
HOSTILE = "<script>alert('x')</script>\"&"


def written(result: Result, tmp_path: Path) -> tuple[str, Page]:
    write_report(result, PLAN, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text("utf-8")
    return text, Page(text)


def test_the_last_table_has_the_numbers_of_the_result(tmp_path: Path) -> None:
    result = fabricated()
    text, _ = written(result, tmp_path)
    cells = [re.sub(r"<[^>]*>", "", cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", text)]

    def after(name: str) -> list[str]:
        return cells[cells.index(name) + 1 : cells.index(name) + 4]

    before, now = result.original, result.compressed
    assert after("Parameters")[:2] == [count(before.parameters), count(now.parameters)]
    assert after("Parameters")[2] == f"{before.parameters / now.parameters:.2f}× smaller"
    assert after("language")[:2] == [count(TOWERS["language"]), count(now.parameters_by_tower["language"])]
    assert after("Test accuracy") == ["83.9 %", "81.7 %", "−2.2 points"]
    assert after("advert") == ["85.9 %", "83.7 %", "−2.2 points"]
    assert after("Samples per second, batch 32") == ["96.4", "171.3", "1.78× as fast"]
    assert after("Latency p50, batch 1") == ["13.5 ms", "7.6 ms", "1.78× shorter"]
    assert "with a paired 95 % interval from −0.4 to 4.8" in text


def test_every_step_is_in_the_table_and_in_every_chart(tmp_path: Path) -> None:
    result = fabricated()
    text, page = written(result, tmp_path)
    assert page.tags.count("svg") == 6, "each for a page and for a phone"
    for number, step in enumerate(result.steps, 1):
        name = f"{number} {step.stage} language"
        assert f"{name}, before distilling: {percent(step.accuracy_pruned)}" in page.texts
        assert f"{name}, after distilling: {percent(step.accuracy)}, {step.decision}" in page.texts
        assert f"{name}: {short_count(step.parameters)} parameters, {step.decision}" in page.texts
        assert f"{name}, distill: {duration(step.seconds['distill'])}" in page.texts
        assert step.reason in page.texts
        if step.checkpoint:
            assert f'title="{step.checkpoint}"' in text
    assert text.count('class="mark rolled-back"') == 2
    assert text.count('class="mark kept"') == 2


def test_the_page_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    text, page = written(fabricated(), tmp_path)
    assert not {"script", "link", "img", "iframe", "object", "a"} & set(page.tags)
    assert not {"src", "href", "style", "onload"} & {name for name, _ in page.attributes}
    assert not re.search(r"https?:|url\(|@import", text)
    assert ("content", "default-src 'none'; img-src data:; style-src 'unsafe-inline'") in page.attributes


def test_hostile_text_is_shown_as_text(tmp_path: Path) -> None:
    result = fabricated("ar")
    step = result.steps[0].model_copy(
        update={name: HOSTILE for name in ("stage", "tower", "reason", "checkpoint")} | {"seconds": {HOSTILE: 3.0}}
    )
    model = result.compressed.model_copy(update={"checkpoint": HOSTILE, "address": HOSTILE})
    task = result.original.model_copy(update={"accuracy_by_task": {HOSTILE: 0.5}})
    changed = {"steps": [step], "compressed": model, "original": task, "run_key": HOSTILE}
    text, page = written(result.model_copy(update=changed | {"environment": {HOSTILE: HOSTILE}}), tmp_path)
    assert "script" not in page.tags
    assert "<script" not in text
    assert HOSTILE in page.texts


def test_control_characters_of_names_are_visible(tmp_path: Path) -> None:
    """Also lone surrogates, which no file can hold: a page is written whole, or not at all."""
    odd, shown = "logo\x1b[2K\n\u202eevil\ud800", r"logo\x1b[2K\n\u202eevil\ud800"
    result = fabricated("ar")
    step = result.steps[0].model_copy(update={"stage": odd, "tower": odd, "reason": odd, "seconds": {odd: 3.0}})
    model = result.original.model_copy(update={"accuracy_by_task": {odd: 0.5}, "address": odd})
    result = result.model_copy(update={"steps": [step], "original": model, "environment": {odd: odd}})
    plan = PLAN.model_copy(update={"data": odd})
    write_report(result, plan, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text("utf-8")
    assert shown in Page(text).texts
    assert not [
        character for character in text if character != "\n" and unicodedata.category(character) in ("Cc", "Cf")
    ]


def test_a_page_that_cannot_be_made_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = written(fabricated(), tmp_path)
    monkeypatch.setattr("lmmpress.reporting.page.closing_table", lambda result: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(fabricated(), PLAN, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text("utf-8") == first
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize("decisions", ["a", "aar", "aaaraaaaaakaaa", "a" * 40])
def test_a_phone_gets_charts_of_its_own_width(tmp_path: Path, decisions: str) -> None:
    """Text is as large there as on a page, so it must fit: nothing is drawn beyond the edge."""
    text, _ = written(fabricated(decisions), tmp_path)
    charts = re.findall(r'<svg class="phone" viewBox="0 0 (\d+) (\d+)".*?</svg>', text, re.S)
    assert [int(width) for width, _ in charts] == [340] * 3
    letter = 6.2
    for svg in re.findall(r'<svg class="phone".*?</svg>', text, re.S):
        for kind, x, words in re.findall(r'<text class="([^"]*)" x="([^"]*)" y="[^"]*">([^<]*)</text>', svg):
            width, start = letter * len(words), float(x)
            before = {"row": width, "end": 0, "over": 0}.get(kind.split()[0], width / 2)
            assert start - before > -8, words
            assert start - before + width < 350, words


def test_a_narrow_window_shows_small_charts_and_nothing_has_a_fixed_width(tmp_path: Path) -> None:
    text, _ = written(fabricated(), tmp_path)
    style = text[text.index("<style>") : text.index("</style>")]
    narrow = style[style.index("@media screen and (max-width: 820px)") :]
    assert narrow.index("svg.page { display: none; }") < narrow.index("svg.phone { display: block; }")
    assert "svg.phone { display: none;" in style
    assert not re.search(r"min-width: [\d.]{3,}px;", style.replace("@media", "")), "wider than a phone"
    assert 'name="viewport" content="width=device-width, initial-scale=1"' in text
    assert text.count("<table>") == text.count('<div class="scroll"'), "a table that is too wide scrolls in itself"


def test_lengths_of_own_answers_are_shown_with_the_speed(tmp_path: Path) -> None:
    result = fabricated("a")
    assert "Tokens of its own answers" not in written(result, tmp_path)[0], "older results do not know them"
    lengths = {"original": 3.25, "compressed": 17.75}
    told = {
        name: getattr(result, name).model_copy(update={"tokens": 3.5, "natural_tokens": own})
        for name, own in lengths.items()
    }
    text, page = written(result.model_copy(update=told), tmp_path)
    place = page.texts.index("Tokens of its own answers")
    assert page.texts[place + 1 : place + 3] == ["3.2", "17.8"]
    assert "3.5 tokens on average, the same for both models" in text


def test_the_speed_of_a_compiled_step_has_rows_of_its_own(tmp_path: Path) -> None:
    result = both_ways(fabricated("a"))
    _, page = written(result, tmp_path)
    eager = page.texts.index("Samples per second, batch 32")
    compiled = page.texts.index("Samples per second, batch 32, compiled")
    for place in (1, 2):
        assert float(page.texts[compiled + place]) == pytest.approx(5 * float(page.texts[eager + place]), rel=0.01)
    assert "Latency p50, batch 1, compiled" in page.texts
    assert "samples/s at batch 32, compiled" in str(result.shown()[0])
    assert Result.model_validate_json(result.model_dump_json()) == result


def test_how_speed_was_measured_is_told(tmp_path: Path) -> None:
    text, _ = written(fabricated("a"), tmp_path)
    assert "Speed was" not in text, "older results do not know it"
    text, _ = written(timed(fabricated("a")), tmp_path)
    assert "7 passes over 64 of 128 rows and 20 single rows in 41.5 s, until the time was up" in text
    assert "the 95 % interval of the ratio is from 1.65 to 1.91" in text


def test_a_run_whose_speed_was_not_measured_has_a_page(tmp_path: Path) -> None:
    text, page = written(without_speed(fabricated("a")), tmp_path)
    assert "Speed was not measured." in text
    assert not [words for words in page.texts if "as fast" in words or "per second" in words or "Latency" in words]


def test_a_step_that_was_never_measured_has_no_dot(tmp_path: Path) -> None:
    result = fabricated("aa")
    nothing: dict[str, Any] = {
        "accuracy": None,
        "accuracy_pruned": None,
        "drop": None,
        "drop_interval": None,
        "seconds": {},
    }
    unmeasured = result.steps[1].model_copy(update=nothing)
    _, page = written(result.model_copy(update={"steps": [result.steps[0], unmeasured]}), tmp_path)
    assert not [text for text in page.texts if text.startswith("2 block language, after")]
    assert [text for text in page.texts if text.startswith("1 block language, after")]
    written(result.model_copy(update={"steps": [unmeasured]}), tmp_path)


def test_a_run_without_steps_has_a_page_without_charts(tmp_path: Path) -> None:
    text, page = written(fabricated(""), tmp_path)
    assert "svg" not in page.tags
    assert "the compressed model is the original" in text


def test_a_report_can_be_made_again_from_the_files_of_a_run(tmp_path: Path) -> None:
    result = fabricated()
    (tmp_path / "result.json").write_text(result.model_dump_json(), "utf-8")
    (tmp_path / "plan.json").write_text(PLAN.model_dump_json(), "utf-8")
    first, _ = written(result, tmp_path)
    (tmp_path / "report.html").unlink()
    assert report_of(tmp_path).read_text("utf-8") == first


def test_the_error_for_a_run_with_missing_or_damaged_files_names_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"result\.json: no such file"):
        report_of(tmp_path)
    (tmp_path / "result.json").write_text("{}", "utf-8")
    with pytest.raises(UserError, match=r"result\.json: not what lmmpress writes"):
        report_of(tmp_path)


def test_numbers_are_formatted_for_people() -> None:
    assert count(12_345_678) == "12\u202f345\u202f678"
    assert short_count(12_345_678) == "12.3 M"
    assert points(-0.0004) == "0.0"
    assert points(-0.012, plus=True) == "−1.2"
    assert percent(None) == "–"
    assert [duration(seconds) for seconds in (3.24, 75, 3599, 3900)] == ["3.2 s", "1.2 min", "1 h 00 min", "1 h 05 min"]


def test_ticks_are_round_and_labels_keep_apart() -> None:
    assert round_ticks(0.52, 0.91) == [0.6, 0.7, 0.8, 0.9]
    assert log_ticks(900, 12_000) == [1000, 2000, 5000, 10_000]
    assert spread([10, 11, 90], 16, 0, 100) == [10, 26, 90]
    assert spread([95, 99], 16, 0, 100) == [84, 100]


@pytest.mark.parametrize(
    "changes",
    [{"seconds": float("nan")}, {"seconds": float("inf")}, {"parameters": 10**400}, {"parameters": -(10**400)}],
)
def test_impossible_numbers_are_a_one_line_error_and_the_old_page_stays(tmp_path: Path, changes: dict) -> None:
    result = json.loads(fabricated().model_dump_json())
    for part in (result, *result["steps"]):
        part.update({key: value for key, value in changes.items() if isinstance(part.get(key), int | float)})
    (tmp_path / "result.json").write_text(json.dumps(result), "utf-8")
    (tmp_path / "plan.json").write_text(PLAN.model_dump_json(), "utf-8")
    (tmp_path / "report.html").write_text("old", "utf-8")
    with pytest.raises(UserError, match=r"result\.json: not what lmmpress writes"):
        report_of(tmp_path)
    assert (tmp_path / "report.html").read_text("utf-8") == "old"
