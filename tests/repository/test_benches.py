"""`make bench` and its table: every figure has its number, docs print that number, and nothing is left out silently."""

import json
import re
from pathlib import Path

import pytest
from support.paths import ROOT

from tools.benches.benches import BENCHES, Bench
from tools.benches.figure import Figure
from tools.benches.figures import FIGURES
from tools.benches.left_out import LEFT_OUT
from tools.benches.run import chosen, run_all
from tools.benches.table import Found, found_in, is_met, number, printed, read, table, target

RESULTS = ROOT / "docs/results"


def blocks(page: str) -> list[str]:
    """The page's rows of tables and its paragraphs, each as one line."""
    text = (ROOT / page).read_text("utf-8")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    prose = "\n".join(line for line in text.splitlines() if not line.startswith("|"))
    return rows + [" ".join(part.split()) for part in prose.split("\n\n")]


def forms(figure: Figure, found: Found) -> list[str]:
    """How docs may print a figure: with its spread, or of two measurements both."""
    middle, low, high = (number(figure, value) for value in (found.median, found.low, found.high))
    both = [f"{middle} ({low} and {high})", f"| {low}, {high} |"] if found.count == 2 else []
    alone = [f"{middle} %"] if figure.times == 100 else [f"{middle} (one pair)"] if found.count == 1 else []
    return [printed(figure, found), *both, *alone]


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.what)
def test_docs_print_what_the_result_has(figure: Figure) -> None:
    found = found_in(read(RESULTS, figure.file), figure)
    near = [block for block in blocks(figure.page) if figure.near in block]
    assert near, f"{figure.page} has no row or paragraph with {figure.near!r}"
    named = [rf"(?<![\d.,]){re.escape(form)}(?!\d|[.,]\d)" for form in forms(figure, found)]
    assert any(re.search(one, block) for one in named for block in near), f"{printed(figure, found)} is not in {near}"


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.what)
def test_docs_name_the_target(figure: Figure) -> None:
    """In its row or paragraph; that of memory stands below the table."""
    places = [figure.near] + ["The target is"] * (figure.file == "memory")
    near = [block for block in blocks(figure.page) if any(place in block for place in places)]
    numbers = [float(word.replace(",", "")) for block in near for word in re.findall(r"\d[\d,]*(?:\.\d+)?", block)]
    for one in (figure.least, figure.most):
        assert one is None or one * figure.times in numbers, f"{target(figure)} is not in {near}"


def test_each_result_is_in_the_list_or_left_out() -> None:
    listed = {figure.file for figure in FIGURES}
    kept = {path.stem for path in RESULTS.glob("*.json")}
    assert kept <= listed | set(LEFT_OUT), "a result is neither in FIGURES nor, with the reason, in LEFT_OUT"
    assert not listed & set(LEFT_OUT)
    assert listed <= kept


def test_each_result_of_the_list_has_a_bench() -> None:
    names = {bench.name for bench in BENCHES}
    assert {figure.file for figure in FIGURES} <= names
    assert len(names) == len(BENCHES)
    assert all((ROOT / bench.file).is_file() for bench in BENCHES)


def test_figures_have_names_of_their_own() -> None:
    assert len({(figure.what, figure.file) for figure in FIGURES}) == len(FIGURES)


def test_docs_name_the_benches_that_are_left_out() -> None:
    (paragraph,) = [block for block in blocks("docs/benchmarks.md") if "run only if `ONLY` names" in block]
    for bench in BENCHES:
        assert bool(bench.left_out) == (f"`{bench.name}`" in paragraph), bench.name


HALVED = Figure("halved / whole", "made_up", ("one", "ratio"), "", most=0.5)
FASTER = Figure("faster / slower", "made_up", ("speed",), "", least=2, places=1)
EACH = Figure("each / bare", "made_up", ("runs", "*", "own"), "", over=("runs", "*", "bare"))
LOST = Figure("lost", "not_there", ("x",), "")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made_up = {
        "one": {"ratio": {"median": 0.45, "min": 0.4, "max": 0.525, "count": 3}},
        "speed": 1.95,
        "runs": [{"own": 3, "bare": 2}, {"own": 4, "bare": 2}, {"own": 9, "bare": 3}],
        "machine": {"cores": 2, "torch": "9.9"},
    }
    (tmp_path / "made_up.json").write_text(json.dumps(made_up), "utf-8")
    return tmp_path


def test_the_table_of_a_folder(folder: Path) -> None:
    assert table(folder, [HALVED, FASTER, EACH]).splitlines() == [
        "what             median (min to max, count)  target       met",
        "-------------------------------------------------------------",
        "halved / whole   0.45 (0.40 to 0.53, 3)      at most 0.5  yes",
        "faster / slower  2.0                         at least 2   NO",
        "each / bare      2.00 (1.50 to 3.00, 3)",
        "",
        "cores 2, torch 9.9: made_up",
    ]


def test_a_target_is_compared_with_the_median_before_it_is_rounded() -> None:
    assert is_met(HALVED, Found(0.5, 0.1, 0.9, 3))
    assert not is_met(HALVED, Found(0.501, 0.1, 0.9, 3))


def test_a_missing_file_is_one_line(folder: Path) -> None:
    *_, told, _, _ = table(folder, [HALVED, LOST, LOST]).splitlines()
    assert told == f"{folder / 'not_there.json'}: there is none; `make bench ONLY=not_there` makes it in out/bench"


def test_a_file_of_other_content_is_one_line(folder: Path) -> None:
    (folder / "not_there.json").write_text("{", "utf-8")
    assert "not_there.json: not JSON; remove it, and measure again" in table(folder, [LOST])
    (folder / "not_there.json").write_text("[1]", "utf-8")
    assert "not_there.json: no number at x (lost)" in table(folder, [LOST])
    (folder / "not_there.json").write_text('{"x": "text"}', "utf-8")
    assert "not_there.json: no number at x (lost)" in table(folder, [LOST])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree with three benches: one counts how often it ran, one fails, one tells its arguments and threads."""
    (tmp_path / "bench").mkdir()
    scripts = {
        "counts": "open('ran', 'a', encoding='utf-8').write('x'); print('{\"ran\": true}')",
        "fails": "raise SystemExit('out of luck')",
        "tells": "import json, os, sys; print(json.dumps([sys.argv[1:], os.environ['OMP_NUM_THREADS']]))",
    }
    for name, text in scripts.items():
        (tmp_path / f"bench/{name}.py").write_text(text, "utf-8")
    return tmp_path


def test_a_bench_with_a_result_is_not_run_again(root: Path) -> None:
    for _ in range(2):
        assert run_all([Bench("counts", "seconds")], root / "out", lambda _: None, root)
    assert (root / "ran").read_text("utf-8") == "x"
    assert json.loads((root / "out/counts.json").read_text("utf-8")) == {"ran": True}


def test_a_bench_that_fails_leaves_no_result_and_does_not_stop_the_others(root: Path) -> None:
    said: list[str] = []
    assert not run_all([Bench("fails", "seconds"), Bench("counts", "seconds")], root / "out", said.append, root)
    assert not (root / "out/fails.json").exists()
    assert (root / "out/counts.json").exists()
    assert f"fails: failed; {root / 'out/fails.log'} says why" in said
    assert "out of luck" in (root / "out/fails.log").read_text("utf-8")


def test_a_bench_of_parts_has_each_under_its_name(root: Path) -> None:
    bench = Bench("both", "seconds", "tells", parts=(("a", ("--x", "1")), ("b", ())), threads=1)
    assert run_all([bench], root / "out", lambda _: None, root)
    assert json.loads((root / "out/both.json").read_text("utf-8")) == {"a": [["--x", "1"], "1"], "b": [[], "1"]}


def test_names_choose_benches() -> None:
    every = [Bench("short", "seconds"), Bench("long", "hours", left_out="it takes hours")]
    assert [bench.name for bench in chosen("", every)] == ["short"]
    assert [bench.name for bench in chosen("long, short", every)] == ["long", "short"]
    with pytest.raises(SystemExit, match="ONLY=lnog: there is no bench 'lnog'; there are short, long"):
        chosen("lnog", every)
