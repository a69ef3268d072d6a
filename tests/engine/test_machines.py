"""Several machines that make a part together: they meet, and a failure says whether a new try may help."""

import subprocess
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support.ports import two_free_ports

from lmmpress.engine.meeting import Meeting
from lmmpress.engine.parts.launch import _run
from lmmpress.engine.parts.worker import Job
from lmmpress.errors import AwayError, UserError
from lmmpress.host.machines import Machines
from lmmpress.plan import parse_plan

SOON = timedelta(seconds=0.2)


def machine(number: int, port: int) -> Machines:
    return Machines(2, 1, number, "127.0.0.1", port)


def test_the_others_wait_for_the_job_of_the_first() -> None:
    port, got = two_free_ports(), []
    first = Meeting(machine(0, port))
    other = threading.Thread(target=lambda: got.append(Meeting(machine(1, port)).job()))
    other.start()
    first.hand_out('{"part": "distill"}')
    other.join()
    assert got == ['{"part": "distill"}']


def test_a_first_machine_that_never_comes_is_away() -> None:
    with pytest.raises(AwayError, match=r"127\.0\.0\.1, port \d+: the first machine is not reached"):
        Meeting(machine(1, two_free_ports()), SOON)


@pytest.mark.parametrize(
    ("told", "machines", "kind"),
    [
        ("RuntimeError: Connection closed by peer", 2, AwayError),
        ("Signal 9 (SIGKILL) received by PID 7", 2, AwayError),
        ("lmmpress.errors.UserError: data: row 7 has no picture", 2, UserError),
        ("torch.OutOfMemoryError: CUDA out of memory", 2, UserError),
        ("RuntimeError: Connection closed by peer", 1, UserError),
    ],
)
def test_a_new_try_is_asked_for_where_another_machine_may_be_at_fault(
    raw_plan: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    told: str,
    machines: int,
    kind: type[UserError],
) -> None:
    monkeypatch.setattr(
        "lmmpress.engine.parts.launch.subprocess.run", lambda *_, **__: subprocess.CompletedProcess([], 1, "", told)
    )
    plan = parse_plan(raw_plan)
    job = Job(
        part="distill", processes=2, plan=plan, original="o", store="s", checkpoint="c", result=tmp_path / "result.json"
    )
    with pytest.raises(UserError, match="distillation on 2 processes failed: ") as failed:
        _run(job, False, machine(0, 29500) if machines > 1 else None)
    assert type(failed.value) is kind
