"""The scripts of examples/, run as their users run them."""

import os
import subprocess
import sys

from support.paths import ROOT


def run_example(name: str, *arguments: object, code: int = 0, environment: dict[str, str] | None = None) -> str:
    """What a script prints, on both streams."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        env=os.environ | {"HF_HUB_OFFLINE": "1", "COLUMNS": "400"} | (environment or {}),
        check=False,
    )
    assert done.returncode == code, done.stdout
    return done.stdout
