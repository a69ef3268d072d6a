"""`make reproduce`: tables say what was found and what is missing, and nothing that was made is made again."""

import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from support.paths import ROOT

from lmmpress.plan import parse_plan
from lmmpress.presets import preset
from reproduce import paper
from reproduce.ablations import ablation_sections
from reproduce.catalogue import (
    base,
    ends,
    epochs_in_time,
    everything,
    gates,
    gradual,
    losses,
    one_shot,
    one_shot_in_time,
    rows,
)
from reproduce.experiments import Experiment, Wanted, outcome_of, resolved
from reproduce.figures import fall_of, figure_7, removed_by_stage, rises_in_stages
from reproduce.form import AXES, Form, sizes_of
from reproduce.kept import Kept, read_kept
from reproduce.orders import order_of, order_sentence
from reproduce.outcome import EndNote, Outcome, StepNote, processor_time_of
from reproduce.page import DOCS, filled, section, shown_of
from reproduce.places import Places
from reproduce.process import Process
from reproduce.runner import Runner
from reproduce.spread import Numbers, shown, told_apart
from reproduce.tables import TASKS, table_2, table_3, table_4
from reproduce.view import View

SAMPLE = Form(
    preset="sample",
    quick=False,
    seeds=(0, 1, 2),
    rows=9000,
    all_rows=12000,
    epochs=1,
    alpha=0.02,
    kl="forward",
    criterion="magnitude",
    accumulation="dataset",
    planned=8,
    planned_alone=dict.fromkeys(AXES, 4),
    stages={
        axis: stage.amounts()
        for axis, stage in ((one.axis, one) for one in parse_plan(preset("sample", with_data=False)).stages)
    },
)
QUICK = SAMPLE.model_copy(update={"quick": True, "seeds": (0,), "rows": 400, "all_rows": 534})


def step(stage: str, after: float, language: int = 1_000_000, **others: float) -> StepNote:
    return StepNote(
        stage=stage,
        decision="kept",
        parameters=language + 500_000,
        language=language,
        before=others.get("before", after - 0.1),
        after=after,
        reference=0.99,
        checkpoint=f"{stage}-{after}",
        processor={"distill": others.get("distill", 10.0), "prune": 1.0, "evaluate": 100.0},
    )


def run(accuracy: float, **others: float) -> Outcome:
    """A run of four steps that ends at an accuracy."""
    sizes = {"block": 3_000_000, "ffn": 2_000_000, "attention": 1_500_000, "io": 1_200_000}
    steps = [step(axis, accuracy, language, **others) for axis, language in sizes.items()]
    return Outcome(steps=tuple(steps), parameters=6_000_000, language=5_000_000, rows=1500, original="o")


class Made:
    """Made-up outcomes: of all experiments an accuracy that the function gives."""

    def __init__(self, accuracy: Callable[[Experiment], float | None]) -> None:
        self.accuracy = accuracy

    def __call__(self, experiment: Experiment) -> Outcome | None:
        value = self.accuracy(experiment)
        if value is None:
            return None
        if experiment.kind != "compared":
            return run(value)
        end = EndNote(parameters=6, language=5_000_000, accuracy=value, by_task=dict.fromkeys(TASKS, value), faster=9)
        return Outcome(rows=4000, ends={name: end for name, _ in experiment.checkpoints})


def row(text: str, name: str) -> list[str]:
    """The cells of the first row that begins with this name."""
    line = next(one for one in text.splitlines() if one.startswith(f"| {name} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


# the tables


def test_a_table_has_the_papers_number_and_ours() -> None:
    def accuracy(experiment: Experiment) -> float:
        worse = "pairwise=none" in str(experiment.settings)
        return (0.90 if worse else 0.95) + 0.001 * experiment.seed

    text = table_4(View(SAMPLE, Made(accuracy)))
    assert row(text, "Eq. 5")[1:3] == ["0.923", "0.951 (0.949 to 0.953)"]
    assert row(text, "no pairwise loss")[1:] == [
        "0.871",
        "0.901 (0.899 to 0.903)",
        "0.901 (0.899 to 0.903)",
        "-0.050",
        "worse",
    ]
    assert row(text, "margin")[1] == ""
    assert row(text, "margin")[-1] == "no difference told"


def test_what_is_missing_is_named_and_is_no_number() -> None:
    view = View(SAMPLE, lambda _: None)
    texts = [table_2(view), table_3(view), table_4(view), figure_7(view)]
    texts += [text for _, text in ablation_sections(view)]
    assert row(texts[0], "after blocks") == ["after blocks", "0.9 B", "missing", "4.4", "missing", "0.914", "missing"]
    assert row(texts[2], "hard labels") == ["hard labels", "0.897", *["missing"] * 4]
    for text in texts:
        assert "nan" not in text
        assert "Same order" not in text
        assert "Other order" not in text


def test_a_missing_seed_is_counted() -> None:
    def two_seeds(experiment: Experiment) -> float | None:
        return None if experiment.seed == 2 else 0.95

    text = table_4(View(SAMPLE, Made(two_seeds)))
    assert row(text, "Eq. 5")[2] == "0.950, 2 of 3 seeds"
    assert "The orders are not compared: Eq. 5, no pairwise loss, hard labels missing." in text


def test_only_table_2_and_the_line_that_repeats_it_read_the_test_split() -> None:
    wanted = [resolved(one, Made(lambda _: 0.9)) for one in everything(SAMPLE)]
    for experiment in wanted:
        assert experiment
        if experiment.kind != "compared":
            assert parse_plan(preset("sample", with_data=False), experiment.settings).splits.test == "gate"
    text = table_3(View(SAMPLE, Made(lambda experiment: 0.5 if experiment.kind == "compared" else 0.9)))
    assert [line for line in text.splitlines() if "0.500" in line] == [
        line for line in text.splitlines() if line.startswith("All stages, gradual, on the **test split**")
    ]


def test_every_experiment_is_a_plan_that_the_model_can_follow() -> None:
    experiments = {resolved(one, Made(lambda _: 0.9)) for one in everything(SAMPLE)}
    assert len({one.key for one in experiments if one}) == len(experiments)
    for settings in {one.settings for one in experiments if one and one.kind != "compared"}:
        assert len(sizes_of("sample", settings)) > 1


@pytest.mark.parametrize("level", ["ffn", "all"])
def test_the_ways_of_a_level_end_at_one_size_with_as_many_epochs(level: str) -> None:
    ways = [gradual(SAMPLE, 0, level), one_shot(SAMPLE, 0, level)]
    sizes = [sizes_of("sample", one.settings)[-1].parameters_by_tower for one in ways]
    assert sizes[0] == sizes[1]
    plans = [parse_plan(preset("sample", with_data=False), one.settings).distillation for one in ways]
    steps = len(sizes_of("sample", ways[0].settings)) - 1
    assert plans[0].epochs * steps == (plans[1].last_epochs or plans[1].epochs)


def test_runs_of_one_content_are_shared() -> None:
    own = base(SAMPLE, 0)
    assert losses(SAMPLE)["Eq. 5"](0) == rows(SAMPLE)[9000](0) == gradual(SAMPLE, 0, "all") == own
    keys = [one.key for one in everything(SAMPLE) if isinstance(one, Experiment)]
    assert Counter(keys)[own.key] > 1
    assert own.key != base(SAMPLE, 1).key
    assert own.key != base(QUICK, 0).key


# equal time


def test_one_shot_gets_the_epochs_that_the_gradual_run_had_time_for() -> None:
    gradual_run = Outcome(steps=(step("ffn", 0.9, distill=30.0), step("ffn", 0.9, distill=20.0)))
    shot = Outcome(steps=(step("ffn", 0.8, distill=8.0),))
    # 52 s less 1 s for the cut, at 2 s an epoch; measuring does not count
    assert epochs_in_time(gradual_run, shot, 4) == round(51 / 2)
    assert epochs_in_time(shot, shot, 4) == 4
    assert epochs_in_time(Outcome(steps=(step("ffn", 0.9, distill=0.0),)), shot, 4) == 1


def test_the_run_in_equal_time_waits_for_both_others() -> None:
    later = one_shot_in_time(SAMPLE, 0, "ffn")
    assert resolved(later, Made(lambda one: None if "87.5%, max" in str(one.settings) else 0.9)) is None
    found = resolved(later, Made(lambda _: 0.9))
    assert found
    # the made-up gradual run works for 44 s, and the one-shot run of 40 s had 4 epochs
    assert "distillation.epochs=4" in found.settings


def test_processor_time_is_the_estimated_energy_over_the_watts() -> None:
    from lmmpress.host.energy_use import Energy

    estimated = Energy(kwh=70 / 3_600_000, kind="estimated", measured=0, how=("10 W a core, times CPU seconds",))
    assert processor_time_of(estimated, 20.0) == 7
    assert processor_time_of(estimated.model_copy(update={"how": ("RAPL",)}), 20.0) == 20
    assert processor_time_of(None, 20.0) == 20


# orders


def numbers(*values: float | None) -> Numbers:
    return Numbers(values)


def test_the_sentence_says_whether_the_order_is_the_papers() -> None:
    printed = {"a": 0.9, "b": 0.8}
    same = order_sentence(printed, {"a": numbers(0.7, 0.71), "b": numbers(0.6, 0.61)}, 100, "Because.")
    assert same == "Same order as in the paper: a > b (1 of 1 pair told apart at 95 %)."
    other = order_sentence(printed, {"a": numbers(0.5, 0.7), "b": numbers(0.7, 0.6)}, 100, "Because.")
    assert other == "Other order than in the paper (a > b): here b > a (0 of 1 pair told apart at 95 %). Because."
    equal = order_sentence(printed, {"a": numbers(0.5), "b": numbers(0.5)}, 100, "Because.")
    assert "here a = b" in equal
    assert order_sentence(printed, {"a": numbers(None), "b": numbers(0.5)}, 9, "Because.") == (
        "The orders are not compared: a missing."
    )


def test_orders_have_ties() -> None:
    assert order_of({"a": 0.5, "b": 0.7, "c": 0.50001}) == "b > a = c"


def test_intervals_are_students() -> None:
    assert shown(numbers(1.0, 2.0, 3.0)) == "2.000 (-0.484 to 4.484)"  # 4.303 * 1 / sqrt(3)
    assert shown(numbers(0.5)) == shown(numbers(0.5, 0.5)) == "0.500"
    assert shown(numbers(None, None)) == "missing"


def test_accuracies_are_told_apart_by_their_differences_by_seed() -> None:
    assert told_apart(numbers(0.9, 0.7, 0.8), numbers(0.89, 0.69, 0.79), 10)
    assert not told_apart(numbers(0.9, 0.7, 0.8), numbers(0.8, 0.8, 0.75), 10)
    assert told_apart(numbers(0.9), numbers(0.8), 1500)
    assert not told_apart(numbers(0.9), numbers(0.8), 50)


# figures


def test_a_cut_costs_what_is_lost_since_the_step_before() -> None:
    steps = (step("block", 0.9, before=0.5), step("ffn", 0.8, before=0.85), step("ffn", 0.7, before=0.6))
    outcome = Outcome(steps=steps)
    assert fall_of(outcome, "block") == pytest.approx(0.49)
    assert fall_of(outcome, "ffn") == pytest.approx((0.05 + 0.2) / 2)
    assert fall_of(outcome, "io") is None


def test_what_each_phase_removes_adds_up() -> None:
    removed = removed_by_stage(run(0.9))
    assert removed == {
        "block": pytest.approx(2.0 / 3.8),
        "ffn and attention": pytest.approx(1.5 / 3.8),
        "io": pytest.approx(0.3 / 3.8),
    }


def test_steps_are_compared_inside_their_stage() -> None:
    steps = [("block", 0.8), ("block", 0.9), ("ffn", 0.95), ("ffn", None), ("ffn", 0.9), ("ffn", 0.8)]
    assert rises_in_stages(steps) == (1, 2)


def test_the_papers_numbers_are_those_of_its_page() -> None:
    page = (ROOT / "docs/paper.md").read_text("utf-8")
    tables = {name: page.partition(f"| Table {name} |")[2].partition("\n\n")[0] for name in ("2", "3", "4")}
    printed = {
        name: {
            cells[1].strip(): [float(cell.removesuffix(" B ")) for cell in cells[2:-1]]
            for cells in (line.split("|") for line in text.splitlines()[2:])
        }
        for name, text in tables.items()
    }
    assert printed["2"] == {
        name: [size, speed, *by_task, accuracy] for name, (size, speed, by_task, accuracy) in paper.TABLE_2.items()
    }
    assert printed["3"] == {name: list(values) for name, values in paper.TABLE_3.items()}
    assert printed["4"] == {name: [value] for name, value in paper.TABLE_4.items()}


# the page


def test_the_page_is_what_the_kept_results_say() -> None:
    page = (DOCS / "results.md").read_text("utf-8")
    assert filled(page, shown_of(read_kept())) == page
    for name in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page):
        assert (DOCS / name).is_file()


@pytest.mark.parametrize(("seeds", "words"), [((0,), "one seed"), ((0, 1, 2), "3 seeds")])
def test_everything_of_the_quick_form_says_so(seeds: tuple[int, ...], words: str) -> None:
    form = QUICK.model_copy(update={"seeds": seeds})
    text = section(Kept(form=form, wanted=1, machine={}, outcomes={base(form, 0).key: run(0.9)}))
    for heading in re.findall(r"^###? .*", text, re.MULTILINE):
        assert "quick form" in heading
        assert words in heading


def test_the_full_form_stands_before_the_quick_one() -> None:
    quick, full = (
        Kept(form=form, wanted=1, machine={}, outcomes={base(form, 0).key: run(0.9)}) for form in (QUICK, SAMPLE)
    )
    empty = full.model_copy(update={"outcomes": {}})
    assert shown_of([full, quick]) == [full]
    assert shown_of([empty, quick]) == [quick]


def test_what_is_kept_is_read_back(tmp_path: Path) -> None:
    kept = Kept(form=SAMPLE, wanted=2, machine={"cores": 2}, outcomes={"a": run(0.9), "b": run(0.8)})
    kept.write(tmp_path)
    assert read_kept(tmp_path) == [kept]


# the runner


ONCE = Outcome(steps=(step("ffn", 0.9),), language=1, rows=9)


class Processes:
    """Makes experiments of one kind by a process that prints an outcome, and counts how often it ran; `how` gives each
    seed's program instead."""

    def __init__(self, folder: Path, how: dict[int, str] | None = None) -> None:
        self.folder, self.how = folder, how or {}

    def __call__(self, experiment: Experiment, places: Places) -> Process:
        folder = places.of(experiment)
        folder.mkdir(parents=True, exist_ok=True)
        note = f"open({str(self.folder / 'ran')!r}, 'a', encoding='utf-8').write('{experiment.seed}\\n')"
        program = f"{note}\n{self.how.get(experiment.seed, f'print({ONCE.model_dump_json()!r})')}"
        return Process(experiment, places, [([sys.executable, "-c", program], folder / "steps.json")])

    @property
    def ran(self) -> Counter[str]:
        return Counter((self.folder / "ran").read_text("utf-8").split())


def experiment(seed: int) -> Experiment:
    return Experiment("sample", seed, kind="script")


def runner(
    wanted: Iterable[Wanted], make: Processes, said: Callable[[str], None] = lambda _: None, jobs: int = 2
) -> Runner:
    return Runner(wanted, Places(make.folder), jobs, said, make, lambda _: 1.0)


def test_an_experiment_that_is_there_is_not_made_again(tmp_path: Path) -> None:
    make = Processes(tmp_path)
    said: list[str] = []
    assert runner([experiment(0), experiment(1), experiment(0)], make, said.append).run()
    assert runner([experiment(0), experiment(1), experiment(2)], make).run()
    assert make.ran == {"0": 1, "1": 1, "2": 1}
    assert Places(tmp_path).known(experiment(0)) == ONCE
    assert "none left" in said[-1]


def test_one_that_fails_is_told_and_does_not_stop_the_others(tmp_path: Path) -> None:
    make = Processes(tmp_path, {0: "raise SystemExit('out of luck')"})
    said: list[str] = []
    assert not runner([experiment(0), experiment(1)], make, said.append).run()
    assert Places(tmp_path).known(experiment(0)) is None
    assert Places(tmp_path).known(experiment(1)) == ONCE
    (line,) = [one for one in said if "failed" in one]
    assert "out of luck" in Path(line.partition("; ")[2].removesuffix(" says why")).read_text("utf-8")


def test_what_was_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    make = Processes(tmp_path, {1: "import time; time.sleep(600)"})

    def stopped(_: str) -> None:
        raise KeyboardInterrupt

    first = runner([experiment(1), experiment(0), experiment(2)], make, stopped)
    with pytest.raises(KeyboardInterrupt):
        first.run()
    for process in first.running:
        assert process._running is not None
        assert process._running.poll() is not None
    assert Places(tmp_path).known(experiment(0)) == ONCE
    assert Places(tmp_path).known(experiment(1)) is None
    make.how = {}
    assert runner([experiment(0), experiment(1), experiment(2)], make).run()
    assert make.ran["0"] == 1
    assert make.ran["1"] <= 2


def test_a_command_whose_output_is_there_is_not_run_again(tmp_path: Path) -> None:
    done, other = tmp_path / "done.json", tmp_path / "other.json"
    done.write_text("{}", "utf-8")
    places = Places(tmp_path)
    places.of(experiment(0)).mkdir(parents=True)
    fails = [sys.executable, "-c", "raise SystemExit(1)"]
    prints = [sys.executable, "-c", "print('{}')"]
    process = Process(experiment(0), places, [(fails, done), (prints, other)])
    while process.ended() is None:
        pass
    assert json.loads(other.read_text("utf-8")) == {}


def test_experiments_that_measure_speed_have_the_machine_to_themselves(tmp_path: Path) -> None:
    at_once: list[int] = []
    alone = Experiment("sample", 7, kind="compared")
    make = Processes(tmp_path, {0: "import time; time.sleep(600)"})

    class Watched(Runner):
        def _collect(self) -> None:
            at_once.append(len(self.running))
            assert not any(one.experiment.alone for one in self.running)
            raise KeyboardInterrupt

    watched = Watched([experiment(0), alone, experiment(2)], Places(tmp_path), 2, print, make, lambda _: 1.0)
    with pytest.raises(KeyboardInterrupt):
        watched.run()
    assert at_once == [1], "what comes after it waits too, so that its turn comes"


def test_tasks_that_the_paper_lacks_stand_alone() -> None:
    ours = EndNote(parameters=9, language=5, accuracy=0.5, by_task={"seen": 0.25, "said": 0.75}, faster=None)
    outcome = Outcome(ends={"original": ours}, rows=100)
    text = table_2(View(QUICK, lambda one: outcome if one.kind == "compared" else run(0.9)))
    assert "| model | said | seen |" in text
    assert "| original | 0.750 | 0.250 |" in text


def test_table_2_waits_for_the_checkpoints_of_its_run() -> None:
    found = resolved(ends(SAMPLE, 0), Made(lambda _: 0.9))
    assert found
    assert [name for name, _ in found.checkpoints] == list(paper.TABLE_2)
    assert resolved(ends(SAMPLE, 0), lambda _: None) is None
    assert outcome_of(ends(SAMPLE, 0), lambda _: None) is None


def test_the_gate_is_tried_in_all_four_ways() -> None:
    assert set(gates(SAMPLE)) == {(a, b) for a in ("stage", "original") for b in ("rollback", "keep")}
