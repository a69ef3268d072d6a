"""What each task of a pipeline fetches of the data: the rows of the split that it computes with, and no others."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from support.buckets import forget_cache
from support.files import contents
from support.s3 import Proxy
from support.tasks import walk

from lmmpress.engine import run as runs
from lmmpress.plan import Plan
from lmmpress.store.connection import connect

pytestmark = pytest.mark.usefixtures("trusting")


@pytest.fixture
def plan(
    raw_plan: dict[str, Any],
    taught: Path,
    data: Path,
    bucket_address: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, Any]:
    """One step of the model, its data and its store in a bucket."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    bucket = bucket_address.removeprefix("s3://").partition("/")[0]
    for name, content in contents(data).items():
        connect()._put_object(bucket, f"ads/{name}", content)
    little = {"epochs": 1, "learning_rate": 1e-9, "batch_size": 8}
    stages = {"ffn": {"step": 16, "max": 16}}
    return raw_plan | {
        "model": str(taught),
        "data": f"s3://{bucket}/ads",
        "store": bucket_address,
        "tolerance": {"alpha": 0.99},
        "distillation": little,
        "stages": stages,
    }


def pictures_of(data: Path) -> dict[str, set[str]]:
    """The pictures of each split."""
    rows = [json.loads(line) for line in (data / "metadata.jsonl").read_text("utf-8").splitlines()]
    return {split: {row["file_name"] for row in rows if row["split"] == split} for split in {r["split"] for r in rows}}


@pytest.fixture
def fetched(plan: dict[str, Any], proxy: Proxy, data: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """The splits whose pictures each task fetches, each task on a machine that has fetched nothing before."""
    of_split, found = pictures_of(data), {}
    for name, task in walk(plan):
        forget_cache()
        forget_data()
        proxy.requests.clear()
        task()
        got = {line.rpartition("/ads/")[2] for line in proxy.requests if line.startswith("GET ") and "/ads/" in line}
        got = {name.partition("?")[0] for name in got}
        found[name] = {split for split, names in of_split.items() if names & got}
        if {"gate": "gate", "publi": "publish"}.get(name[:5]) or name.startswith("prune"):
            assert "metadata.jsonl" not in got, f"{name} needs no row"
    return found


def forget_data() -> None:
    from lmmpress.data import address, index, rows

    address.open_data.cache_clear()
    for cache in (rows._split, index._opened):
        cache.cache_clear()


def test_a_task_fetches_only_the_rows_that_it_computes_with(fetched: dict[str, set[str]]) -> None:
    assert fetched == {
        "evaluate original": {"gate"},
        "importance ffn 0": {"score"},
        "prune ffn 0": set(),
        "distill ffn 0": {"distill"},
        "evaluate ffn 0": {"gate"},
        "gate ffn 0": set(),
        "evaluate result": {"test"},
        "publish": set(),
    }


def test_scores_that_need_no_rows_fetch_none(plan: dict[str, Any], proxy: Proxy) -> None:
    for name, task in walk(plan | {"importance": {"criterion": "magnitude"}}):
        if name.startswith("importance"):
            forget_cache()
            forget_data()
            proxy.requests.clear()
            task()
            assert not [line for line in proxy.requests if "/ads/" in line]
            return
        task()


def test_rows_that_changed_since_the_run_began_are_refused(
    plan: dict[str, Any], data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bucket = str(plan["data"]).removeprefix("s3://").partition("/")[0]
    for name, task in walk(plan):
        if name.startswith("distill"):
            rows = (data / "metadata.jsonl").read_text("utf-8").replace('"answer": "', '"answer": "x', 400)
            connect()._put_object(bucket, "ads/metadata.jsonl", rows.encode())
            forget_cache()
            forget_data()
            with pytest.raises(SystemExit):
                task()
            assert "have changed since this run began" in capsys.readouterr().err
            return
        task()


@pytest.mark.parametrize("module", ["due_steps", "gating", "by_name"])
def test_a_task_that_only_decides_imports_neither_torch_nor_mlflow(module: str) -> None:
    heavy = ["torch", "transformers", "accelerate", "mlflow", "pandas", "scipy", "kfp"]
    code = f"import lmmpress.tasks.{module}, sys; print([name for name in {heavy} if name in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True).stdout == "[]\n"
    )


def test_a_task_out_of_order_ends_before_it_fetches_or_imports_anything(
    plan: dict[str, Any], proxy: Proxy, capsys: pytest.CaptureFixture[str]
) -> None:
    from support import task_functions as tasks
    from support.tasks import prepared

    store, run, _ = prepared(plan | {"stages": {"ffn": {"step": 8, "max": 16}}})
    forget_cache()
    forget_data()
    proxy.requests.clear()
    with pytest.raises(SystemExit):
        tasks.prune(store, run, "ffn", 1)
    assert "step 2 of stage ffn is not due: 0 steps of this run are decided" in capsys.readouterr().err
    assert not [line for line in proxy.requests if "/ads/" in line or "/blobs/" in line], "no row, no checkpoint"
    with pytest.raises(SystemExit):
        tasks.prune(store, run, "ffn", 0)
    assert "importance is not done yet; another task of the run does it" in capsys.readouterr().err
    assert not [line for line in proxy.requests if "/ads/" in line], "no row"


def test_the_first_task_waits_for_a_store_that_has_answered(
    plan: dict[str, Any], proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store goes away once the task has reached it, until it was asked twice in vain: its data were never asked for
    before."""
    from support.tasks import prepared

    monkeypatch.setattr("lmmpress.host.patience._FIRST", 0.3)
    check = runs.check

    def come_back() -> None:
        while proxy.resets < 2:
            time.sleep(0.01)
        proxy.reset_after = None

    def check_without_store(plan: Plan) -> runs.CheckedPlan:
        proxy.reset_after = 0
        threading.Thread(target=come_back, daemon=True).start()
        return check(plan)

    monkeypatch.setattr(runs, "check", check_without_store)
    assert prepared(plan)[1]
    assert proxy.resets > 1


def test_the_first_task_tells_at_once_that_there_is_no_store(
    plan: dict[str, Any], proxy: Proxy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from support.tasks import prepared

    monkeypatch.setattr("lmmpress.host.patience._FIRST", 0.3)
    proxy.reset_after = 0
    with pytest.raises(SystemExit) as ended:
        prepared(plan)
    assert ended.value.code == 1
    assert "no answer from the server" in capsys.readouterr().err
