"""bench/gpu.py on small shapes: each part gives its numbers, and one that fails leaves those of the others."""

from typing import Any

import gpu
import pytest


def test_every_part_has_numbers_or_says_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise ValueError("no such thing")

    monkeypatch.setattr(gpu, "scoring", fails)
    found = gpu.measured(gpu.Setting(tiny=True, rounds=1), [3], minutes=9)
    update = found["update, 3 blocks"]
    assert update["seconds_over_bare"] > 0
    assert update["predicted"].keys() == {"gib", "seconds"}
    assert found["generation"]["plain_over_ours"]["count"] == 1
    assert found["scoring"] == {"failed": "ValueError: no such thing"}
    over = gpu.measured(gpu.Setting(tiny=True, rounds=1), [3], minutes=-1)
    assert over["generation"] == {"left_out": "-1 minutes are over"}
