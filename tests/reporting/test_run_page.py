"""What the report says beside the numbers of the result: disagreements, time, energy, and how to repeat the run."""

import base64
import io
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.certain import certain
from support.parsed_page import Page
from support.results import fabricated

from lmmpress.evaluation.comparison import Differing, Said
from lmmpress.evaluation.disagreements import Disagreement, Disagreements
from lmmpress.evaluation.energy import run_energy
from lmmpress.host.energy_use import Energy
from lmmpress.plan import Plan, parse_plan
from lmmpress.reporting import keep_rows, report_of, write_report
from lmmpress.reporting.costs import energy_shown, times
from lmmpress.reporting.repeating import commands
from lmmpress.result import DataInfo, MetricInfo, Result

PLAN = parse_plan({"model": "/models/original", "data": "/data/my adverts", "stages": {"block": {"step": 1, "max": 3}}})
HOSTILE = "<script>alert('x')</script>\"&<img src=x onerror=y>"


def written(tmp_path: Path, result: Result, rows: Disagreements | None = None, plan: Plan = PLAN) -> tuple[str, Page]:
    write_report(result, plan, tmp_path / "report.html", rows)
    text = (tmp_path / "report.html").read_text("utf-8")
    return text, Page(text)


def said(text: str, right: bool) -> Said:
    return Said(text=text, right=right, ended=True, log_probability=None)


def picture() -> str:
    file = io.BytesIO()
    Image.new("RGB", (20, 10), "red").save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def disagreements(**changes: Any) -> Disagreements:
    row = Differing(
        kind="lost",
        line=7,
        file_name="a.png",
        task="advert",
        question="whose logo?",
        wanted="Alipay",
        a=said("Alipay", True),
        b=said("Taobao", False),
    )
    lost = Disagreement(row=row.model_copy(update=changes), metric="exact", worth=(1.0, 0.0), picture=picture())
    other = row.model_copy(update={"kind": "gained", "line": 2, "a": said("no", False), "b": said("Alipay", True)})
    gained = Disagreement(row=other, metric="exact", worth=(0.0, 1.0))
    return Disagreements(rows=1000, lost=31, gained=4, shown=(lost, gained))


def energy(kwh: float, measured: bool = False) -> Energy:
    kind, how = ("measured", "RAPL, 1 processor package") if measured else ("estimated", "10 W a core")
    return Energy.model_validate({"kwh": kwh, "kind": kind, "measured": float(measured), "how": [how]})


def test_rows_are_shown_with_both_answers_and_their_picture(tmp_path: Path) -> None:
    text, page = written(tmp_path, fabricated("ar"), disagreements())
    for shown in ("whose logo?", "Alipay", "advert, line 7", "only the original is right", "Original", "Compressed"):
        assert shown in page.texts
    assert "31 are worth more to the original and 4 to the compressed model" in text
    assert text.index("only the original is right") < text.index("only the compressed model is right")
    assert "Taobao ✗" in page.texts
    assert page.tags.count("img") == 1
    (src,) = [value for name, value in page.attributes if name == "src"]
    assert certain(src).startswith("data:image/png;base64,")
    assert not {"script", "link", "iframe", "object", "a"} & set(page.tags)


def test_texts_of_rows_are_shown_as_text(tmp_path: Path) -> None:
    hostile = {name: HOSTILE for name in ("task", "question", "wanted")} | {"b": said(HOSTILE, False)}
    _, page = written(tmp_path, fabricated("ar"), disagreements(**hostile))
    assert "script" not in page.tags
    assert page.tags.count("img") == 1
    assert not {"onerror"} & {name for name, _ in page.attributes}
    assert HOSTILE in page.texts


def test_numbers_of_other_metrics_stand_beside_the_answers(tmp_path: Path) -> None:
    metric = MetricInfo(name="rouge_l", better="higher", is_share=False, low=0, high=1)
    result = fabricated("ar").model_copy(update={"metrics": {"advert": metric}})
    found = disagreements()
    shown = [one.model_copy(update={"metric": "rouge_l", "worth": (0.85, 0.2)}) for one in found.shown]
    _, page = written(tmp_path, result, found.model_copy(update={"shown": tuple(shown)}))
    assert "the original is better, by rouge_l" in page.texts
    assert {"Alipay (0.85)", "Taobao (0.2)"} <= set(page.texts)


def test_a_page_without_rows_says_what_is_left_out(tmp_path: Path) -> None:
    text, _ = written(tmp_path, fabricated("ar"))
    assert "The rows on which original and compressed disagree are left out" in text
    none = Disagreements(rows=10, lost=0, gained=0, shown=())
    text, _ = written(tmp_path, fabricated("ar"), none)
    assert "No row of the test split is worth more to one of them." in text


def test_a_report_that_is_written_later_finds_the_rows_beside_the_result(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(fabricated("ar").model_dump_json(), "utf-8")
    (tmp_path / "plan.json").write_text(PLAN.model_dump_json(), "utf-8")
    keep_rows(tmp_path, disagreements())
    assert "whose logo?" in report_of(tmp_path).read_text("utf-8")
    for damaged in ("{}", "no json", json.dumps({"rows": 1, "shown": 3})):
        (tmp_path / "disagreements.json").write_text(damaged, "utf-8")
        assert "disagree are left out" in report_of(tmp_path).read_text("utf-8")


def test_the_time_adds_up_by_part_and_by_step() -> None:
    result = fabricated()
    parts = result.seconds_by_part | {"test": 20.0, "speed": 60.0}
    in_steps = {name: sum(step.seconds[name] for step in result.steps) for name in ("distill", "evaluate")}
    parts |= {"distill": in_steps["distill"], "evaluate": in_steps["evaluate"] + 9.0}
    result = result.model_copy(
        update={"seconds_by_part": parts, "own_seconds": 15.0, "seconds": sum(parts.values()) + 15}
    )
    found = times(result)
    assert found.seconds == pytest.approx(result.seconds)
    assert sum(part.seconds for part in found.by_part) == pytest.approx(found.seconds)
    assert sum(part.share for part in found.by_part) == pytest.approx(1)
    assert sum(step.seconds for step in found.by_step) == pytest.approx(found.seconds)
    assert found.by_part[-1][:2] == ("the run itself", 15.0)
    others = {step.name: step.seconds for step in found.by_step[len(result.steps) :]}
    assert others["the original, before the first step"] == pytest.approx(9.0)
    assert others["test"] == 20.0
    assert found.found == 0


def test_parts_that_were_found_are_part_of_the_whole_and_told(tmp_path: Path) -> None:
    result = fabricated().model_copy(update={"own_seconds": 10.0, "seconds": 100.0})
    found = times(result)
    assert found.seconds == pytest.approx(sum(result.seconds_by_part.values()) + 10)
    assert found.found == pytest.approx(found.seconds - 100)
    text, _ = written(tmp_path, result)
    assert "those parts were found in the store" in text


def test_a_pipeline_counts_only_its_parts(tmp_path: Path) -> None:
    text, page = written(tmp_path, fabricated())
    assert "the run itself" not in page.texts
    assert "what passed between them, such as waiting for machines, is not counted" in text


def test_the_page_says_what_energy_is_and_when_it_is_paid_back(tmp_path: Path) -> None:
    parts: dict[str, list[Energy | None]] = {"distill": [energy(0.5)], "evaluate": [None]}
    used = run_energy([energy(0.002), energy(0.0005)], parts, 1_000_000)
    text, page = written(tmp_path, fabricated("ar").model_copy(update={"energy": used}))
    for words in (
        "0.00200 kWh",
        "0.000500 kWh",
        "4.00× less",
        "estimated",
        "Inference is estimated: 10 W a core.",
        "Compressing took at least 0.500 kWh, estimated: 10 W a core.",
        "After at least 333\u202f334 inferences the compressed model has saved what compressing took.",
        "At 1\u202f000\u202f000 inferences a year it saves 1.50 kWh a year.",
    ):
        assert words in page.texts, words
    assert "Counters count the whole chip" in text


def test_a_model_that_takes_no_less_is_told(tmp_path: Path) -> None:
    used = run_energy([energy(1, measured=True), energy(2, measured=True)], {"distill": [energy(1, True)]}, 5000)
    assert used is not None
    told = energy_shown(used)
    assert told.inferences == ("1.00 kWh", "2.00 kWh", "not less", "measured")
    assert "The compressed model does not take less energy, so nothing pays the compression back." in told.sentences
    assert "At 5\u202f000 inferences a year it takes 5.00 kWh more a year." in told.sentences


def test_a_result_of_an_older_version_has_no_energy_and_is_read(tmp_path: Path) -> None:
    raw = json.loads(fabricated("ar").model_dump_json())
    for step in raw["steps"]:
        del step["energy"]
    for name in ("energy", "own_seconds", "data"):
        del raw[name]
    text, _ = written(tmp_path, Result.model_validate(raw))
    assert "Energy" not in text


def test_how_to_repeat_the_run(tmp_path: Path) -> None:
    data = [DataInfo(split="held out", role="test", rows=1234, digest="d" * 64)]
    result = fabricated("ar").model_copy(update={"data": data})
    lines = [shlex.split(command.line) for command in commands(result, PLAN)]
    assert lines[0] == ["lmmpress", "run", "plan.yaml", "--out", "again"]
    assert lines[-1][:4] == ["lmmpress", "compare", result.original.address, result.compressed.address]
    assert lines[-1][4:8] == ["--data", "/data/my adverts", "--split", "held out"]
    _, page = written(tmp_path, result)
    for command in commands(result, PLAN):
        assert command.line in page.texts
    assert {result.run_key, "d" * 64, "torch", "2.6"} <= set(page.texts)


def test_commands_of_hostile_addresses_are_quoted_and_escaped(tmp_path: Path) -> None:
    plan = PLAN.model_copy(update={"data": f"x; rm -rf / {HOSTILE}"})
    assert f"x; rm -rf / {HOSTILE}" in shlex.split(commands(fabricated("ar"), plan)[-1].line)
    _, page = written(tmp_path, fabricated("ar"), plan=plan)
    assert "script" not in page.tags
