"""docs/metrics.md says of every metric what the registry says, and its examples hold."""

import ast
import math
import re
from dataclasses import fields

import pytest
import yaml
from support.paths import ROOT, TESTS

from lmmpress.metrics import Metric, metric_named, metric_names, score_rows
from lmmpress.metrics.quantity import quantity
from lmmpress.plan import parse_plan

PAGE = (ROOT / "docs" / "metrics.md").read_text("utf-8")
BLOCKS = re.findall(r"```text (\w+)\n(.*?)```", PAGE, re.DOTALL)
EXAMPLES = [(name, line) for name, block in BLOCKS for line in block.splitlines()]
METRIC_FIELDS = [field.name for field in fields(Metric)]
ROWS = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.splitlines() if line.startswith("| `")]
METRICS = {row[0].strip("`"): row[1:] for row in ROWS if len(row) == 6}


def test_the_table_is_the_registry() -> None:
    assert list(METRICS) == metric_names()
    for name, (needs, scale, better, package, purpose) in METRICS.items():
        metric = metric_named(name)
        low, high = metric.bounds
        scales = {True: "0 or 1", False: f"{low:g} to {high:g}" if math.isfinite(high) else f"from {low:g} on"}
        assert (needs, scale, better) == (metric.needs, scales[metric.is_share], metric.better)
        assert package == (metric.package or "")
        assert purpose
        assert re.search(rf"^### .*\b{name}\b", PAGE, re.MULTILINE), name


def test_there_are_examples_of_every_metric_of_single_texts() -> None:
    assert {name for name, _ in EXAMPLES} == {
        name for name in metric_names() if metric_named(name).needs == "text" and name != "cider"
    }


@pytest.mark.parametrize(("name", "line"), EXAMPLES)
def test_an_example_holds(name: str, line: str) -> None:
    said, answers, value = line.split(" | ")
    rows = [[ast.literal_eval(one) for one in re.findall("'[^']*'", answers)]]
    assert score_rows(metric_named(name), [ast.literal_eval(said)], rows) == [pytest.approx(float(value), abs=1e-6)]


@pytest.mark.parametrize(
    ("form", "value"),
    [
        *(("1,234.5", 1234.5), ("1.234,5", 1234.5), ("1,234,567", 1234567), ("1.234.567", 1234567), ("1'234", 1234)),
        *(("12,34,567", 1234567), ("1,234", 1234), ("3,14", 3.14), ("0,125", 0.125), ("1.234", 1.234)),
        *(("1 234", None), ("-5", -5), ("−5", -5), ("-$5", -5), ("minus 5", -5), ("负五", -5), ("零下五度", -5)),
        *(("45%", 0.45), ("45 percent", 0.45), ("百分之四十五", 0.45), ("5‰", 0.005), ("$5", 5), ("5 USD", 5)),
        *(("￥５", 5), ("五元", 5), ("5kg", 5), ("3rd", 3), ("1.5e-3", 0.0015), ("3 million", 3e6), ("2 hundred", 200)),
        *(("3万5千", 35000), ("1.5亿", 1.5e8), ("三百二十五", 325), ("一万二", 12000), ("二〇二四", 2024)),
        *(("三点一四", 3.14), ("壹佰", 100), ("two", 2), ("A4", None)),
    ],
)
def test_a_documented_number_is_read(form: str, value: float | None) -> None:
    assert f"`{form}`" in PAGE
    found = quantity(form)
    assert (None if found is None else float(found)) == value


def test_the_plan_and_its_short_forms_are_as_documented() -> None:
    (setting,) = re.findall(r"```yaml\n(metrics:.*?)```", PAGE, re.DOTALL)
    base = {"model": "m", "data": "d", "stages": {}}
    plan = parse_plan(base | yaml.safe_load(setting))
    assert plan.metrics["price"] == {"numeric": {"relative": 0.05}}
    assert parse_plan(base | {"metrics": "rouge_l"}) == parse_plan(base | {"metrics": {"default": "rouge_l"}})
    assert parse_plan(base) == parse_plan(base | {"metrics": "exact"})


def test_the_documented_metric_is_the_tested_one() -> None:
    assert (TESTS / "metrics" / "length" / "length_metric.py").read_text("utf-8") in PAGE
    documented = [row[0].strip("`") for row in ROWS if len(row) == 2 and row[0].strip("`") in METRIC_FIELDS]
    assert documented == METRIC_FIELDS
