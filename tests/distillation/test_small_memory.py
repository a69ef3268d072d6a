"""A student that does not fit into the memory with so many rows learns the same with fewer at once."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from support.exact_distillation import SETTINGS, distil, exact_pair
from support.paths import TESTS
from support.small_memory import memory_for, no_memory

from lmmpress.distillation.train import rows_at_once
from lmmpress.errors import UserError
from lmmpress.lmm.at_once import remembering
from lmmpress.lmm.examples import Examples
from lmmpress.progress import Said, listening
from lmmpress.settings.distillation import MICRO_BATCH, Distillation

Pair = tuple[torch.nn.Module, torch.nn.Module, Examples]


@pytest.fixture
def fresh(make_checkpoint: Callable[..., Path], data: Path) -> Callable[[], Pair]:
    return lambda: exact_pair(make_checkpoint("opt"), data)


def settings(micro_batch: Any) -> Distillation:
    """Updates of seven rows."""
    return Distillation(**SETTINGS | {"batch_size": 7, "micro_batch_size": micro_batch})


def assert_equal(student: torch.nn.Module, wanted: dict[str, torch.Tensor]) -> None:
    for name, value in student.state_dict().items():
        assert torch.allclose(value, wanted[name], rtol=0, atol=1e-10), name


@pytest.mark.parametrize(
    ("asked", "kind", "where"), [("auto", "gpu", "forward"), (64, "cpu", "backward"), (5, "gpu", "backward")]
)
def test_an_update_that_does_not_fit_is_made_anew_in_smaller_portions(
    fresh: Callable[[], Pair], asked: Any, kind: Any, where: Any
) -> None:
    plain, pair = fresh(), fresh()
    wanted = distil(plain, settings(3))
    said: list[str] = []
    listener = listening(lambda event: said.append(event.words) if isinstance(event, Said) else None)
    with memory_for(3, pair[0], no_memory(kind), where=where) as seen, listener, remembering({}) as at_once:
        losses = distil(pair, settings(asked))
    assert losses == pytest.approx(wanted, rel=1e-6)
    assert_equal(pair[0], plain[0].state_dict())
    rows = 2 if asked == 5 else 3  # half of the five or the seven rows that were tried
    assert [one for one in seen if one > rows] == [5 if asked == 5 else 7], "it is tried once"
    assert at_once == {"distill": rows}
    assert said == [
        f"distill: {rows} rows at once from here on, since more do not fit into the memory "
        "(distillation.micro_batch_size)"
    ]


def test_the_memory_may_run_out_in_the_middle_of_an_update(fresh: Callable[[], Pair]) -> None:
    """The gradients of portions that fitted do not count twice."""
    plain, pair = fresh(), fresh()
    wanted = distil(plain, settings(3))
    with memory_for(1, pair[0], after=4, where="backward"):
        losses = distil(pair, settings(3))
    assert losses == pytest.approx(wanted, rel=1e-6)
    assert_equal(pair[0], plain[0].state_dict())


def test_rows_at_once_stay_lowered(fresh: Callable[[], Pair]) -> None:
    lowered: dict[str, int] = {}
    for tries in (1, 0):
        pair = fresh()
        with memory_for(3, pair[0]) as seen, remembering(lowered) as at_once:
            distil(pair, settings("auto"))
        assert (sum(one > 3 for one in seen), lowered, at_once) == (tries, {"distill": 3}, {"distill": 3})


def test_a_single_row_that_does_not_fit_is_a_message_for_people(fresh: Callable[[], Pair]) -> None:
    pair = fresh()
    with memory_for(0, pair[0]) as seen, pytest.raises(UserError, match=r"^distill: .* a single row; .*--resume"):
        distil(pair, settings("auto"))
    assert seen == [7, 3, 1]


def test_processes_that_share_a_student_do_not_go_on_with_fewer_rows() -> None:
    """Each of their forward passes needs all of them, so none of them can begin anew alone."""
    tried: list[int] = []

    def work(rows: int) -> None:
        tried.append(rows)
        raise no_memory()

    with remembering({"distill": 3}) as at_once:
        shared = rows_at_once(settings(5), sharded=True)
        with pytest.raises(UserError, match=r"^distill: .* 5 rows at once, .* distillation\.micro_batch_size [^\n]*$"):
            shared.fit(work, 7)
    assert (tried, at_once) == ([5], {"distill": 5})


def test_another_error_is_no_lack_of_memory(fresh: Callable[[], Pair]) -> None:
    pair, fault = fresh(), RuntimeError("mat1 and mat2 shapes cannot be multiplied (7x3 and 4x3)")
    with memory_for(3, pair[0], fault) as seen, pytest.raises(RuntimeError) as raised:
        distil(pair, settings("auto"))
    assert raised.value is fault
    assert seen == [7]


def in_two_processes(checkpoint: Path, data: Path, target: Path, rows: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "support.small_memory", str(checkpoint), str(data), str(target), str(rows)]
    variables = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(TESTS)}
    return subprocess.run(
        command, env=os.environ | variables, capture_output=True, text=True, encoding="utf-8", check=False, timeout=300
    )


def test_a_process_that_runs_out_of_memory_waits_for_no_other(
    fresh: Callable[[], Pair], make_checkpoint: Callable[..., Path], data: Path, tmp_path: Path
) -> None:
    """The second of two processes has memory for one row, and has computed most gradients of its first update when it
    runs out of it."""
    plain = fresh()
    wanted = distil(plain, settings(7))
    ended = in_two_processes(make_checkpoint("opt"), data, tmp_path / "found.safetensors", 1)
    assert ended.returncode == 0, ended.stderr
    with safe_open(tmp_path / "found.safetensors", "pt") as file:
        found = json.loads(file.metadata()["found"])
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert found["losses"] == pytest.approx(wanted, rel=1e-6)
    assert_equal(plain[0], weights)
    assert found["at_once"] == {"distill": 1}, "the first takes as few, though it has room for more"


def test_a_process_without_memory_for_a_single_row_ends_all_of_them(
    make_checkpoint: Callable[..., Path], data: Path, tmp_path: Path
) -> None:
    ended = in_two_processes(make_checkpoint("opt"), data, tmp_path / "found.safetensors", 0)
    assert ended.returncode != 0
    assert "lmmpress.errors.UserError: distill: the memory is too small for a single row" in ended.stderr


def test_a_run_key_does_not_depend_on_who_chose_the_default(raw_plan: dict[str, Any]) -> None:
    from lmmpress.plan import parse_plan

    plans = [
        parse_plan(raw_plan | {"distillation": raw_plan["distillation"] | {"micro_batch_size": asked}})
        for asked in ("auto", MICRO_BATCH)
    ]
    assert plans[0].key_settings() == plans[1].key_settings()
    assert plans[0].key_settings()["distillation"]["micro_batch_size"] == 64
