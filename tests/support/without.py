"""A process in which some packages cannot be imported: what runs there finds an environment without extras.

python -m support.without '["mlflow"]' MODULE FUNCTION '{"argument": ...}'
"""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from support.paths import ROOT, TESTS

EXTRAS = (
    *("jiwer", "kfp", "kfp_kubernetes", "kubernetes", "mlflow", "minio", "pyarrow", "rapidfuzz"),
    *("authlib", "cronsim", "fastapi", "prometheus_client", "pydantic_settings", "torchao", "uvicorn"),
)
"""The packages of extras."""
BROUGHT = ("urllib3", "requests", "sqlalchemy", "alembic", "certifi", "boto3")
"""What comes with them, or with the tests, and is nowhere else."""


def block(packages: Sequence[str]) -> None:
    """Let nobody find these packages from now on, as if they were not installed."""
    found = PathFinder.find_spec

    def find_spec(name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        return None if name.partition(".")[0] in packages else found(name, path, target)

    PathFinder.find_spec = staticmethod(find_spec)  # type: ignore[assignment,method-assign]


def without(packages: Sequence[str], module: str, function: str, cwd: Path, **arguments: Any) -> Any:
    """What a function gives in a process without these packages, through JSON."""
    command = [sys.executable, "-m", "support.without", json.dumps(list(packages)), module, function]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join((str(TESTS), str(ROOT))),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "400",
    }
    done = subprocess.run(
        [*command, json.dumps(arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=cwd,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    block(json.loads(sys.argv[1]))
    called = getattr(importlib.import_module(sys.argv[2]), sys.argv[3])
    print(json.dumps(called(**json.loads(sys.argv[4]))))
