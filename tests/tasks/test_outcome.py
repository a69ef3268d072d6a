"""What a task shows in the pages of Kubeflow: foreign names are shown as they are, not as markup."""

from support.results import TIMING, both_ways, fabricated, timed, without_speed

from lmmpress.tasks.outcome import of_result, table


def test_a_table_shows_names_as_they_are() -> None:
    name = "a|b `c` <img src=x> [d](e)\n\x1b[2K| 1 |"
    head, _, row = table(["task", "rows"], [[name, 12345]]).split("\n")
    assert head == "| task | rows |"
    assert row == r"| a\|b \`c\` \<img src=x\> \[d\](e)\\n\\x1b\[2K\| 1 \| | 12,345 |"


def test_the_length_of_own_answers_is_shown_with_the_speed() -> None:
    result = fabricated("a")
    assert "tokens of its own answers" not in of_result(result).summary, "older results do not know them"
    assert of_result(result).metrics["natural_tokens"] is None
    told = {
        name: getattr(result, name).model_copy(update={"natural_tokens": own})
        for name, own in {"original": 3.25, "compressed": 17.75}.items()
    }
    outcome = of_result(result.model_copy(update=told))
    assert "| tokens of its own answers | 3.2 | 17.8 |" in outcome.summary
    assert outcome.metrics["natural_tokens"] == 17.75


def test_the_speed_of_a_compiled_step_has_rows_of_its_own() -> None:
    summary = of_result(both_ways(fabricated("a"))).summary
    assert summary.count("| samples/s |") == summary.count("| samples/s, compiled |") == 1


def test_how_speed_was_measured_is_shown() -> None:
    assert of_result(timed(fabricated("a"))).summary.endswith(f"\n\nspeed: {TIMING}")
    assert "speed:" not in of_result(fabricated("a")).summary, "older results do not know it"


def test_without_speed_nothing_is_shown_of_it() -> None:
    outcome = of_result(without_speed(fabricated("a")))
    assert "samples/s" not in outcome.summary
    assert outcome.summary.endswith("speed: not measured")
    assert "test accuracy" in outcome.summary
    assert {"samples_per_second", "latency_ms_p50", "natural_tokens"}.isdisjoint(outcome.as_json()["metrics"])
