"""A plan is read exactly or refused, one line for each fault."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from support.certain import certain

from lmmpress.errors import UserError
from lmmpress.lmm.read_anatomy import anatomy_of, read_config
from lmmpress.plan import Plan, digest_of, parse_plan, read_plan
from lmmpress.presets import preset
from lmmpress.pruning.sizes import Size, predict
from lmmpress.stages import Amounts

AXES = ("block", "ffn", "attention", "io")
RAW = {"model": "m", "data": "d", "stages": {"ffn": {"step": 8, "max": 16}}}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tolerence={}", "did you mean 'tolerance'"),
        ("distillation.epoch=2", "did you mean 'epochs'"),
        ("stages.fnn={step: 1, max: 2}", "did you mean 'ffn'"),
        ("stages.ffn.stepp=2", "did you mean 'step'"),
        ("tolerance.alpha=0", "tolerance.alpha: input should be greater than 0"),
        ("tolerance.alpha=1", "tolerance.alpha: input should be less than 1"),
        ("distillation.kl=backward", "'reverse' or 'forward'"),
        ("stages.ffn.step=0", "stages.ffn.step"),
        ("towers=[audio]", "towers"),
        ("trust_remote_code=true", "trust_remote_code"),
        ("model.path=x", "no section"),
    ],
)
def test_a_misspelt_setting_is_refused_with_a_suggestion(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        parse_plan(RAW, (override,))
    assert "\n" not in str(caught.value)


def test_a_missing_model_is_named() -> None:
    with pytest.raises(UserError, match="model is missing"):
        parse_plan({"data": "d", "stages": {}})


def refused(tmp_path: Path, text: str, *overrides: str) -> list[str]:
    """The lines that a plan file is refused with, without the path that each begins with."""
    path = tmp_path / "plan.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(UserError) as caught:
        read_plan(path, overrides)
    return [line.removeprefix(str(path)).removeprefix(", ").removeprefix(": ") for line in caught.value.lines]


def test_all_faults_of_a_plan_are_reported_with_their_lines(tmp_path: Path) -> None:
    text = """
model: m
data: 2024-01-01
tolerence: {alpha: 0.1}
tolerance:
  alpha: 2
  confidence: maybe
distillation: {epochs: -1, learning_rate: .inf}
seed: 1
seed: one
"""
    assert refused(tmp_path, text) == [
        "stages is missing",
        "line 3: data is a date, but settings are text, numbers, lists and mappings; put it in quotes if text is meant",
        "line 4: unknown key tolerence; did you mean 'tolerance'?",
        "line 6: tolerance.alpha: input should be less than 1, got 2",
        "line 7: tolerance.confidence: input should be 'none', or a valid number, unable to parse string as a number, "
        "got 'maybe'",
        "line 8: distillation.learning_rate is no finite number: .inf",
        "line 8: distillation.epochs: input should be greater than or equal to 0, got -1",
        "line 10: seed stands twice, first in line 9",
    ]


def test_a_fault_that_the_command_line_overrides_is_not_reported(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(
        "model: m\ndata: d\nseed: 2024-01-01\nstages: {ffn: {step: 0, max: .nan}}\n", "utf-8"
    )
    plan = read_plan(tmp_path / "plan.yaml", ("seed=3", "stages.ffn={step: 1, max: 2}"))
    assert (plan.seed, plan.stage("ffn").max) == (3, 2)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("seed=[1", "--set seed, line 1, column 3: not YAML: expected ',' or ']', but got the end"),
        ("seed=2024-01-01", "--set seed is a date"),
        ("seed=1e999999999999999999999", "seed: input should be a valid integer"),
        ("distillation.learning_rate=.nan", "--set distillation.learning_rate is no finite number: .nan"),
        ("stages.ffn={step: 1, max: 10_000_000}", "stages.ffn asks for 10000000 steps; a stage has at most 10000"),
        ("seed", "--set seed: write it as key.key=value"),
        ("=", "unknown key"),
        (".".join(["a"] * 5000) + "=1", "unknown key a"),
    ],
)
def test_a_value_of_the_command_line_is_checked_as_strictly(override: str, told: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_plan(RAW, (override,))
    assert told in str(caught.value)
    assert len(caught.value.lines) == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_number_of_a_plan_is_infinite(value: float) -> None:
    with pytest.raises(UserError, match="finite number"):
        parse_plan(RAW | {"distillation": {"learning_rate": value}})


@pytest.mark.parametrize("key", ["model", "data", "store"])
@pytest.mark.parametrize(
    "address",
    ["s3://KEY:hush@b/p", "s3:/KEY:hush@b/p", "KEY:hush@b/p", "s3://b/p?X-Amz-Signature=hush", "https://hush@host/m"],
)
def test_credentials_in_an_address_are_refused_and_not_repeated(tmp_path: Path, key: str, address: str) -> None:
    (line,) = refused(tmp_path, json.dumps(RAW | {key: address}))
    assert line.startswith(f"line 1: {key} holds credentials, and a plan is kept and shown: write ")
    assert "environment" in line
    assert "hush" not in line
    with pytest.raises(UserError) as caught:
        parse_plan(RAW, (f"{key}={address}",))
    assert "hush" not in str(caught.value)
    with pytest.raises(ValidationError) as bare:
        Plan.model_validate(RAW | {key: address})
    assert "hush" not in str(bare.value)


def test_a_path_may_look_like_an_address(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text("model: ./a:b@c\ndata: run?token=1\nstages: {}\n", "utf-8")
    plan = read_plan(tmp_path / "plan.yaml")
    assert (plan.model, plan.data) == (str(tmp_path / "a:b@c"), str(tmp_path / "run?token=1"))


keys = st.sampled_from([*Plan.model_fields, "step", "max", "ffn", "block", "alpha", "rows", "kl", "confidence", "x"])
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["s3://k:hush@b", "none", "1e400", "largest"])
)
settings_of_any_form = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4), max_leaves=12
)


@settings(deadline=None, max_examples=300)
@given(st.dictionaries(keys, settings_of_any_form, max_size=8), st.booleans())
def test_any_settings_are_a_plan_or_are_refused_line_by_line(raw: dict[str, Any], whole: bool) -> None:
    try:
        plan = parse_plan(RAW | raw if whole else raw)
        assert Plan.model_validate_json(plan.model_dump_json()) == plan
    except UserError as error:
        told = error.lines
        assert told
        assert all(line.startswith("plan: ") and "hush" not in line for line in told)


def test_paths_are_taken_from_the_plans_folder(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text("model: ./m\ndata: ./d\nstore: s3://b/p\nstages: {}\n", "utf-8")
    plan = read_plan(tmp_path / "plan.yaml")
    assert plan.model == str(tmp_path / "m")
    assert plan.store == "s3://b/p"


@pytest.mark.parametrize("text", ["[1, 2]", "a: b: c", "\t"])
def test_a_plan_that_is_not_a_mapping_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "plan.yaml").write_text(text, "utf-8")
    with pytest.raises(UserError):
        read_plan(tmp_path / "plan.yaml")


def test_the_last_step_of_a_stage_is_smaller_where_step_does_not_divide_max() -> None:
    assert Amounts(step=4, max=10).removals() == [4, 4, 2]
    assert Amounts(step=4, max=8).removals() == [4, 4]
    assert Amounts(step=9, max=8).removals() == [8]


def test_stages_keep_the_order_they_are_written_in() -> None:
    swapped = RAW | {"stages": {"io": {"step": 1, "max": 1}, "block": {"step": 1, "max": 1}}}
    plan = parse_plan(swapped)
    assert [stage.name for stage in plan.stages] == ["io", "block"]
    assert plan.key_settings()["stages"][0][0] == "io"


def test_moving_model_and_data_does_not_change_the_run_key() -> None:
    assert parse_plan(RAW).key_settings() == parse_plan(RAW, ("model=elsewhere", "store=there")).key_settings()
    assert parse_plan(RAW).key_settings() != parse_plan(RAW, ("seed=1",)).key_settings()


@pytest.fixture(scope="module")
def paper_sizes() -> list[Size]:
    raw = preset("paper")
    plan = parse_plan(raw)
    return predict(anatomy_of(read_config(Path(plan.model))), plan)


def test_the_papers_preset_gives_the_sizes_of_table_2(paper_sizes: list[Size]) -> None:
    """5.44 B, 0.906 B after blocks, 0.53 B after FFN and attention, 0.40 B at the end: the derived language tower."""
    billions = {(size.stage, size.index): size.parameters_by_tower["language"] / 1e9 for size in paper_sizes}
    assert billions["original", 0] == pytest.approx(5.44, abs=0.005)
    assert billions["block", 9] == pytest.approx(0.906, abs=0.0005)
    assert billions["attention", 7] == pytest.approx(0.53, abs=0.005)
    assert billions["io", 7] == pytest.approx(0.40, abs=0.005)
    assert len(paper_sizes) == 1 + 10 + 8 + 8 + 8


def test_sizes_of_blocks_agree_with_arithmetic(paper_sizes: list[Size]) -> None:
    for size in paper_sizes:
        blocks, ffn, attention, io = (size.widths[f"language.{axis}"] for axis in ("block", "ffn", "attention", "io"))
        norms = (2 * blocks + 1) * io
        wanted = blocks * (4 * io * attention + 2 * io * ffn) + norms
        assert size.parameters_by_tower["language"] == wanted


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stages.attention.step=100", "nearest legal value is 96 or 192"),
        ("stages.block.max=48", "at most 47"),
        ("stages.io.step=100", "nearest legal value is 96 or 144"),
        ("towers=[audio]", "towers"),
    ],
)
def test_illegal_amounts_are_refused_before_any_work(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        plan = parse_plan(preset("paper"), (override,))
        predict(anatomy_of(read_config(Path(plan.model))), plan)


def test_largest_goes_to_whatever_tower_is_largest_at_each_step() -> None:
    plan = parse_plan(preset("paper"), ("towers=[largest]", "stages={block: {step: 8, max: 48}}"))
    towers = [size.tower for size in predict(anatomy_of(read_config(Path(plan.model))), plan)[1:]]
    assert towers[0] == "language"
    assert towers[-1] == "vision"


def test_a_plan_survives_json() -> None:
    plan = parse_plan(RAW)
    assert type(plan).model_validate_json(plan.model_dump_json()) == plan
    assert json.loads(plan.model_dump_json())["stages"] == {"ffn": {"step": 8, "max": 16}}


LISTED = [
    {"axis": "block", "step": 4, "max": 8},
    {"axis": "ffn", "tower": "vision", "step": 8, "max": 16},
    {"axis": "block", "step": 1, "max": 2},
]


def test_stages_may_be_a_list_in_which_an_axis_comes_twice_and_a_stage_has_its_own_tower() -> None:
    plan = parse_plan(RAW | {"stages": LISTED})
    assert [stage.name for stage in plan.stages] == ["block", "ffn", "block-2"]
    assert plan.stage("block-2").max == 2
    assert [plan.stage_towers(stage) for stage in plan.stages] == [["language"], ["vision"], ["language"]]
    assert plan.towers_in_use() == ["language", "vision"]
    assert list(map(plan.most_steps, plan.stages)) == [2, 2, 2]
    with pytest.raises(UserError, match=r"no stage 'blok'; did you mean 'block'\?"):
        plan.stage("blok")
    largest = parse_plan(RAW | {"towers": ["vision", "language"], "stages": [LISTED[0] | {"tower": "largest"}]})
    assert largest.stage_towers(largest.stages[0]) == [None]
    assert largest.towers_in_use() == ["largest"]


def test_a_mapping_of_stages_is_such_a_list_with_the_same_key_and_a_plan_is_dumped_in_the_older_form() -> None:
    """These bytes are what a run key is the hash of: they were written before stages could be a list."""
    amounts = {"step": 8, "max": 16}
    mapping, listed = parse_plan(RAW), parse_plan(RAW | {"stages": [{"axis": "ffn"} | amounts]})
    named = parse_plan(RAW | {"stages": [{"axis": "ffn", "tower": "language"} | amounts]})
    elsewhere = parse_plan(RAW | {"stages": [{"axis": "ffn", "tower": "vision"} | amounts]})
    assert mapping == listed
    assert digest_of(mapping.key_settings()) == "3e23ceb5db0cfea38f57837d4e0e57413860254a1f91036a489c84607b28d4e3"
    for plan in (listed, named):
        assert digest_of(plan.key_settings()) == digest_of(mapping.key_settings())
    assert digest_of(elsewhere.key_settings()) != digest_of(mapping.key_settings())
    assert listed.model_dump()["stages"] == {"ffn": amounts}
    assert elsewhere.model_dump()["stages"] == [{"axis": "ffn", "tower": "vision"} | amounts]
    assert parse_plan(RAW | {"stages": LISTED}).model_dump()["stages"] == LISTED
    for plan in (mapping, named, elsewhere, parse_plan(RAW | {"stages": LISTED})):
        assert Plan.model_validate(plan.model_dump()) == Plan.model_validate_json(plan.model_dump_json()) == plan


@pytest.mark.parametrize(
    ("stages", "line"),
    [
        ("  fnn: {step: 1, max: 2}", "line 4: unknown key stages.fnn; did you mean 'ffn'?"),
        ("  ffn: {step: 1, max: 2, tower: vision}", "line 4: unknown key stages.ffn.tower; known are step, max"),
        ("  ffn: 3", "line 4: stages.ffn: input should be a section of settings, got 3"),
        ("  - 3", "line 4: stages.0: input should be a section of settings, got 3"),
        (
            "  - {axis: ffn, step: 1, max: 2}\n  - {axis: fnn, step: 1, max: 2}",
            "line 5: stages.1.axis: there is no axis 'fnn'; did you mean 'ffn'?",
        ),
        ("  - axis: ffn\n    step: 0\n    max: 1", "line 5: stages.0.step: input should be greater than 0, got 0"),
        ("  - {axis: ffn, step: 1}", "line 4: stages.0.max is missing"),
        ("  - {axis: ffn, step: 1, max: 2, towr: vision}", "line 4: unknown key stages.0.towr; did you mean 'tower'?"),
        ("  7", "line 3: stages: input should be a mapping of axes, or a list of stages, got 7"),
    ],
)
def test_a_fault_of_a_stage_is_told_at_its_place(tmp_path: Path, stages: str, line: str) -> None:
    assert refused(tmp_path, f"model: m\ndata: d\nstages:\n{stages}\n") == [line]


def test_a_stage_of_a_list_is_changed_by_its_name_or_its_number() -> None:
    def changed(*overrides: str) -> list[tuple[str, Any, Any]]:
        plan = parse_plan(RAW | {"stages": LISTED}, overrides)
        return [(stage.name, stage.step, stage.max) for stage in plan.stages]

    assert changed("stages.block-2.max=3", "stages.0.step=2") == [("block", 2, 8), ("ffn", 8, 16), ("block-2", 1, 3)]
    assert changed("stages.ffn={step: 1, max: 2}")[1] == ("ffn", 1, 2)
    assert changed("stages.block.axis=io") == [("io", 4, 8), ("ffn", 8, 16), ("block", 1, 2)]
    assert changed("stages={io: {step: 1, max: 1}}") == [("io", 1, 1)]
    for place, known in (("blok", "did you mean 'block'?"), ("3", "known are block, ffn, block-2")):
        with pytest.raises(UserError) as caught:
            changed(f"stages.{place}.max=3")
        assert str(caught.value) == f"--set stages.{place}.max: stages has no entry {place!r}; {known}"


def test_a_change_of_a_stage_in_a_list_hides_its_fault_in_the_file(tmp_path: Path) -> None:
    text = "model: m\ndata: d\nstages:\n  - {axis: ffn, step: 1, max: .nan}\n  - {axis: ffn, step: 0, max: 1}\n"
    (tmp_path / "plan.yaml").write_text(text, "utf-8")
    plan = read_plan(tmp_path / "plan.yaml", ("stages.ffn.max=2", "stages.ffn-2.step=1"))
    assert [stage.max for stage in plan.stages] == [2, 1]


def test_stages_along_one_axis_share_its_width() -> None:
    raw = preset("paper") | {"stages": [LISTED[0] | {"max": 40}, LISTED[0] | {"max": 8}]}
    plan = parse_plan(raw)
    anatomy = anatomy_of(read_config(Path(plan.model)))
    message = "stage block-2, after the steps before it: block of the language tower is 8 wide: 8 cannot be removed"
    with pytest.raises(UserError, match=message):
        predict(anatomy, plan)
    sizes = predict(anatomy, parse_plan(raw, ("stages.block-2.max=4", "stages.block-2.tower=vision")))
    assert [size.stage for size in sizes[1:]] == ["block"] * 10 + ["block-2"]
    assert (sizes[-2].tower, sizes[-1].tower) == ("language", "vision")
    assert sizes[0].widths.keys() == {f"{tower}.{one}" for tower in ("language", "vision") for one in AXES}


def test_alpha_is_on_the_scale_of_the_metrics_that_the_plan_names() -> None:
    assert parse_plan(RAW, ("metrics=kl", "tolerance.alpha=3")).tolerance.alpha == 3
    assert parse_plan(RAW, ("metrics.caption=cider", "tolerance.per_task={caption: 9}")).tolerance.per_task
    for override, told in (
        ("tolerance.alpha=10", "tolerance.alpha: input should be less than 10, got 10"),
        ("tolerance.per_task={caption: 12.5}", "tolerance.per_task.caption: input should be less than 10, got 12.5"),
        ("tolerance.per_task={caption: 0}", "tolerance.per_task.caption: input should be greater than 0, got 0"),
    ):
        with pytest.raises(UserError) as caught:
            parse_plan(RAW, ("metrics.caption=cider", override))
        (line,) = caught.value.lines
        assert told in line


@pytest.mark.parametrize(
    "override",
    [
        *("metrics=exact", "labels=given", "tolerance.per_task=false"),
        *("importance.processes=1", "evaluation.processes=1", "distillation.sharding=auto"),
    ],
)
def test_a_new_setting_with_its_default_does_not_change_the_run(override: str) -> None:
    assert parse_plan(RAW, (override,)).key_settings() == parse_plan(RAW).key_settings()
    assert not {"metrics", "labels", "max_new_tokens"} & parse_plan(RAW).key_settings().keys()


@pytest.mark.parametrize(("written", "size"), [("200GB", 200 * 10**9), ("64GiB", 64 << 30), ("1.5kB", 1500), ("7", 7)])
def test_a_budget_is_a_size_or_a_number_of_bytes(written: str, size: int) -> None:
    plan = parse_plan(RAW, (f"distillation.caches={{disk: {written}, memory: {written}}}",))
    assert certain(plan.distillation.cached).disk == certain(plan.distillation.cached).memory == size
    assert parse_plan(plan.model_dump(mode="json")) == plan


@pytest.mark.parametrize("written", ["200XB", "-1", "-5GB", "many", "true", "1.5", "[1]"])
@pytest.mark.parametrize("key", ["disk", "memory"])
def test_a_wrong_budget_is_one_line(key: str, written: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_plan(RAW, (f"distillation.caches={{{key}: {written}}}",))
    (line,) = caught.value.lines
    assert f"distillation.caches.{key}: input should be " in line
    assert "a size, such as 200GB, 64GiB or a whole number of bytes" in line


@pytest.mark.parametrize("override", ["distillation.caches={dtype: int8}", "distillation.caches={dsik: 1GB}"])
def test_other_faults_of_caches_are_one_line_too(override: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_plan(RAW, (override,))
    (line,) = caught.value.lines
    assert "distillation.caches.d" in line


def test_of_caches_only_their_dtype_makes_another_run() -> None:
    def key(caches: str) -> dict[str, Any]:
        return parse_plan(RAW, (f"distillation.caches={caches}",)).key_settings()

    for caches in ("true", "{}", "{disk: 1GB}", "{memory: 5}"):
        assert key(caches) == parse_plan(RAW).key_settings()
    assert key("true")["distillation"]["caches"] is True
    assert key("false")["distillation"]["caches"] is False
    assert key("{dtype: bfloat16, disk: 7}")["distillation"]["caches"] == {"dtype": "bfloat16"}


@pytest.mark.parametrize("override", ["importance.processes=4", "evaluation.processes=4", "distillation.sharding=full"])
def test_how_processes_share_work_does_not_change_the_run(override: str) -> None:
    assert parse_plan(RAW, (override,)).key_settings() == parse_plan(RAW).key_settings()
    assert parse_plan(RAW, (override,)).evaluation.of_speed() == parse_plan(RAW).evaluation.of_speed()


@pytest.mark.parametrize(
    "override",
    ["metrics.caption=rouge_l", "labels=teacher", "tolerance.per_task=true", "evaluation.max_new_tokens=7"],
)
def test_what_is_judged_and_how_is_part_of_the_run(override: str) -> None:
    assert parse_plan(RAW, (override,)).key_settings() != parse_plan(RAW).key_settings()


@pytest.mark.parametrize("written", ["25%", "25.0%", "25 %", " 25.00% "])
def test_a_share_has_one_form(written: str) -> None:
    plan = parse_plan(RAW, (f"stages.ffn.max={written}",))
    assert plan.stage("ffn").amounts() == {"step": 8, "max": "25%"}
    assert not plan.in_numbers
    assert Plan.model_validate_json(plan.model_dump_json()) == plan
    assert parse_plan(RAW, ("stages.ffn.step=12.5%",)).stage("ffn").step == "12.5%"


def test_amounts_by_tower_that_are_all_the_same_are_one_amount() -> None:
    """So a plan has one run key, and whole numbers have the key that they had before there were others."""
    raw = RAW | {"towers": ["vision", "language"]}
    same = parse_plan(raw, ("stages.ffn.max={vision: 16, language: 16}",))
    assert same == parse_plan(raw)
    assert digest_of(same.key_settings()) == digest_of(parse_plan(raw).key_settings())
    other = parse_plan(raw, ("stages.ffn.max={vision: 1, language: 16}", "stages.ffn.step={language: 8, vision: 1}"))
    assert digest_of(other.key_settings()) != digest_of(same.key_settings())
    assert [other.stage("ffn").removals(tower) for tower in ("vision", "language")] == [[1], [8, 8]]
    assert other.most_steps(other.stage("ffn")) == 3
    assert other.model_dump()["stages"] == {
        "ffn": {"step": {"vision": 1, "language": 8}, "max": {"vision": 1, "language": 16}}
    }
    assert Plan.model_validate_json(other.model_dump_json()) == other
    assert parse_plan(raw, ("stages.ffn.max={vision: 1, language: 16}", "stages.ffn.max.vision=2")).stage(
        "ffn"
    ).removals("vision") == [2]


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("stages.ffn.max=100%", "stages.ffn.max is the whole width, of which something has to stay; write less than"),
        ("stages.ffn.step=0%", "stages.ffn.step is no share above 0% and up to 100%; write it like 25% or 12.5%"),
        ("stages.ffn.step=-5%", "stages.ffn.step is no share above 0%"),
        ("stages.ffn.step=many%", "stages.ffn.step is no share above 0%"),
        ("stages.ffn.max=0.25", "stages.ffn.max: input should be a valid integer, got 0.25"),
        ("stages.ffn={step: 0.001%, max: 90%}", "stages.ffn asks for 90000 steps; a stage has at most 10000"),
        ("stages.ffn.max={vision: 8}", "stages: ffn.max has nothing for tower language; this stage cuts vision, lang"),
        (
            "stages.ffn.step={vision: 8, language: 8, qformer: 8}",
            "stages: ffn.step names tower qformer, which is not cut; this stage cuts vision, language",
        ),
        ("stages.ffn.max={visoin: 8}", "unknown key stages.ffn.max.visoin; did you mean 'vision'?"),
        ("stages.ffn.max={largest: 8}", "unknown key stages.ffn.max.largest; did you mean 'language'?"),
        (
            "stages.ffn.max={vision: 0, language: 8}",
            "stages.ffn.max.vision: input should be greater than 0, got 0",
        ),
        ("stages.ffn.max={vision: 101%, language: 8}", "stages.ffn.max.vision is no share above 0%"),
        ("stages.ffn.max={vision: {vision: 8}, language: 8}", "stages.ffn.max.vision: input should be a valid integer"),
    ],
)
def test_a_share_or_an_amount_by_tower_is_read_exactly_or_refused_in_one_line(override: str, line: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_plan(RAW | {"towers": ["vision", "language"]}, (override,))
    (found,) = caught.value.lines
    assert found.startswith(f"plan: {line}")


@pytest.mark.parametrize("amount", ["50%", {"vision": 8, "language": 8}])
@pytest.mark.parametrize("largest", [{"towers": ["largest"]}, {"own": "largest"}])
def test_the_largest_tower_takes_whole_numbers_alone(largest: dict[str, Any], amount: Any) -> None:
    """Which tower that is changes with the decisions of the gate, and its maximum counts over all of them."""
    stage = {"axis": "ffn", "step": 8, "max": amount} | ({"tower": "largest"} if "own" in largest else {})
    with pytest.raises(UserError) as caught:
        parse_plan(RAW | {"stages": [stage], "towers": largest.get("towers", ["vision", "language"])})
    (line,) = caught.value.lines
    assert line.startswith("plan: stages: ffn.max: with towers: [largest] each step may cut another tower")
    assert line.endswith("write a whole number, or name the towers, as in towers: [vision, language]")
