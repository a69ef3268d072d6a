"""The page of a comparison needs no other file, runs nothing, and shows texts and pictures of strangers safely."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.parsed_page import Page
from support.results import TIMING, TOWERS

from lmmpress.errors import UserError
from lmmpress.evaluation.comparison import (
    Compared,
    Comparison,
    Data,
    Difference,
    Differing,
    Energy,
    Memory,
    Ratio,
    Said,
    Turns,
)
from lmmpress.reporting import write_comparison
from lmmpress.reporting.comparison_page import render
from lmmpress.result import Interval, Latency, Speed

HOSTILE = "<script>alert('x')</script>\"&<img src=x onerror=y>"
PNG = b"\x89PNG\r\n\x1a\n"


def side(name: str, scale: float, **changes: Any) -> Compared:
    towers = {tower: round(size * scale) for tower, size in TOWERS.items()}
    speed = Speed(
        batch_size=32,
        samples_per_second=100 / scale,
        latency_ms=Latency(p50=10 * scale, p95=20 * scale),
        tokens=3.0,
        natural_tokens=3.5,
    )
    values: dict[str, Any] = {
        "checkpoint": name * 64,
        "address": f"/models/{name}",
        "parameters": sum(towers.values()),
        "parameters_by_tower": towers,
        "bytes": 2 * sum(towers.values()),
        "accuracy": 0.9 * scale,
        "accuracy_by_task": {"advert": 0.9 * scale},
        "memory": Memory(process=round(1e8 * scale), gpu=None, batch_size=32),
        "speed": speed,
        "energy": Energy(joules_per_sample=2 * scale, kind="measured", how="RAPL, 1 processor package"),
    }
    return Compared(**(values | changes))


def difference(lost: int = 30, gained: int = 5) -> Difference:
    return Difference(
        rows=100,
        both=60,
        lost=lost,
        gained=gained,
        neither=40 - lost - gained,
        same_answer=62,
        drop=(lost - gained) / 100,
        drop_interval=Interval(low=0.1, high=0.4, confidence=0.95),
        p=1e-6,
    )


def row(number: int = 1, **changes: Any) -> Differing:
    values: dict[str, Any] = {
        "kind": "lost",
        "line": number,
        "file_name": f"images/{number}.png",
        "task": "advert",
        "question": f"question {number}",
        "wanted": "red",
        "a": Said(text="red", right=True, ended=True, log_probability=-0.1),
        "b": Said(text=f"blue {number}", right=False, ended=False, log_probability=None),
        "picture": PNG,
    }
    return Differing(**(values | changes))


def comparison(**changes: Any) -> Comparison:
    ratio = Ratio(median=2.0, low=1.5, high=2.5, count=5)
    values: dict[str, Any] = {
        "a": side("a", 1.0),
        "b": side("b", 0.5),
        "data": Data(address="/data", split="test", digest="d" * 64, rows=100, images=50, tasks=[]),
        "all": difference(),
        "by_task": {"advert": difference()},
        "turns": Turns(together=True, samples_per_second=ratio, latency=ratio),
        "differing": [row()],
        "environment": {"torch": "2.0", "device": "cpu"},
        "seconds": 12.0,
    }
    return Comparison(**(values | changes))


def test_the_page_has_the_numbers_of_the_comparison() -> None:
    found = comparison()
    page = Page(render(found))
    text = " ".join(page.texts)
    assert "B is 2.00× smaller and 2.00× as fast, 25.0 points of accuracy lost" in page.texts
    for words in ("90.0 %", "45.0 %", "10.0 to 40.0", "< 0.0001", "62.0 %", "2.00× as fast (1.50 to 2.50 in 5 turns)"):
        assert words in text
    assert "Energy of a sample, measured" in page.texts
    assert "RAPL, 1 processor package" in text
    assert "question 1" in page.texts
    assert "blue 1 … (not ended) ✗" in text
    assert ("src", "data:image/png;base64,iVBORw0KGgo=") in page.attributes


def test_a_ratio_is_shown_with_its_interval() -> None:
    b = side("b", 0.5)
    assert b.speed is not None
    found = comparison(b=b.model_copy(update={"speed": b.speed.model_copy(update={"timing": TIMING})}))
    text = " ".join(Page(render(found)).texts)
    assert "1.78× as fast (95 %: 1.65 to 1.91, 5 turns)" in text
    assert "7 passes over 64 of 128 rows" in text
    printed = [part for part in found.shown() if isinstance(part, str)]
    assert f"speed: {TIMING}" in printed


def test_a_comparison_without_speed_says_so() -> None:
    nothing = {"speed": None, "energy": None}
    found = comparison(a=side("a", 1.0, **nothing), b=side("b", 0.5, **nothing), turns=None)
    assert "Speed was not measured." in " ".join(Page(render(found)).texts)
    assert "speed was not measured" in found.shown()


def test_the_page_needs_nothing_from_elsewhere_and_runs_nothing() -> None:
    text = render(comparison())
    page = Page(text)
    assert not {"script", "link", "iframe", "object", "a", "form", "svg"} & set(page.tags)
    assert not {name for name, _ in page.attributes} & {"href", "style", "onload", "onerror", "srcset"}
    assert all(value and value.startswith("data:image/png;base64,") for name, value in page.attributes if name == "src")
    assert not re.search(r"https?:|url\(|@import", text)
    assert ("content", "default-src 'none'; img-src data:; style-src 'unsafe-inline'") in page.attributes


def test_hostile_text_is_shown_as_text() -> None:
    said = Said(text=HOSTILE, right=False, ended=True, log_probability=None)
    changes: dict[str, Any] = {name: HOSTILE for name in ("task", "question", "wanted", "file_name")}
    found = comparison(
        differing=[row(a=said, b=said, **changes)],
        by_task={HOSTILE: difference()},
        a=side("a", 1.0, address=HOSTILE, parameters_by_tower={HOSTILE: 3}),
        data=Data(address=HOSTILE, split=HOSTILE, digest=HOSTILE, rows=1, images=1, tasks=[HOSTILE]),
        environment={HOSTILE: HOSTILE},
    )
    text = render(found)
    page = Page(text)
    assert page.tags.count("img") == 1, "the row's own picture"
    assert "script" not in page.tags
    assert "<script" not in text
    assert page.texts.count(HOSTILE) >= 5


def test_control_characters_are_visible() -> None:
    odd, shown = "logo\x1b[2K\n\u202eevil\ud800", r"logo\x1b[2K\n\u202eevil\ud800"
    text = render(comparison(differing=[row(question=odd, task=odd, wanted=odd)]))
    assert shown in Page(text).texts
    text.encode("utf-8")


def test_a_long_text_is_cut_on_the_page_and_whole_in_json(tmp_path: Path) -> None:
    found = comparison(differing=[row(question="x" * 100_000)])
    write_comparison(found, tmp_path / "out")
    assert len((tmp_path / "out" / "comparison.html").read_text("utf-8")) < 50_000
    assert (
        json.loads((tmp_path / "out" / "comparison.json").read_text("utf-8"))["differing"][0]["question"]
        == "x" * 100_000
    )


def test_of_many_rows_the_worst_are_shown() -> None:
    all_rows = difference().model_copy(update={"rows": 1000, "same_answer": 800})
    page = Page(render(comparison(all=all_rows, differing=[row(number) for number in range(1, 201)])))
    assert sum("only A is right" in text for text in page.texts) == 50
    assert "The first 50 of 200" in " ".join(page.texts)


def test_what_was_not_measured_is_not_shown() -> None:
    sides = {
        name: side(name, 1.0, speed=None, energy=None, memory=Memory(process=None, gpu=None, batch_size=4))
        for name in "ab"
    }
    text = render(comparison(**sides, turns=None, differing=[]))
    assert not re.search(r"Samples per second|Latency|Energy|Peak memory of the (process|GPU)", text)
    assert "All answers are equal." in text
    assert "B is as large, 25.0 points of accuracy lost" in text


def test_a_row_without_a_picture_has_none() -> None:
    page = Page(render(comparison(differing=[row(picture=None, file_name=None)])))
    assert "img" not in page.tags


def test_a_slower_model_is_said_to_be_slower_and_a_hungrier_one_hungrier() -> None:
    text = render(comparison(a=side("a", 0.5), b=side("b", 1.0), all=difference(5, 30)))
    assert "2.00× larger" in text
    assert "25.0 points of accuracy gained" in text
    assert "2.00× more" in text


def test_both_files_are_written_and_read_back(tmp_path: Path) -> None:
    found = comparison()
    write_comparison(found, tmp_path / "new" / "out")
    names = sorted(path.name for path in (tmp_path / "new" / "out").iterdir())
    assert names == ["comparison.html", "comparison.json"]
    again = Comparison.model_validate_json((tmp_path / "new" / "out" / "comparison.json").read_text("utf-8"))
    assert again.model_dump() == found.model_dump()
    assert "question 1" in render(again), "a page can be made of it again, without pictures"


def test_a_file_in_the_folders_place_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine", "utf-8")
    with pytest.raises(UserError, match="written into a folder, and this is a file"):
        write_comparison(comparison(), tmp_path / "out")
    assert (tmp_path / "out").read_text("utf-8") == "mine"
