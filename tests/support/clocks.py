"""Time for tests that measure speed on a machine that may be busy."""

import pytest

from lmmpress.evaluation.pace import Pace


def give_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every pass have all rows, and count all own answers, however long that takes."""
    monkeypatch.setattr(Pace, "of_a_pass", lambda *_: 1e6)
    monkeypatch.setattr(Pace, "of_own_answers", lambda *_: 1e6)
