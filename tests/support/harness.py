"""A stand-in for lm-evaluation-harness: a package that writes down how it was started, and what it is told to.

Its results are those of a real run, tests/benchmarks/recorded. What it does is the name of its first task.
"""

import json
import os
import textwrap
from pathlib import Path
from typing import Any

import pytest

from support.paths import TESTS

RECORDED = TESTS / "benchmarks" / "recorded"
LM_EVAL, LMMS_EVAL = RECORDED / "lm_eval-0.4.13.json", RECORDED / "lmms_eval-0.7.3.json"

PROGRAM = """
import json, os, sys, time
from pathlib import Path

here = Path(__file__).parent
option = {name: value for name, value in zip(sys.argv[1:], sys.argv[2:]) if name.startswith("--")}
arguments = dict(pair.split("=", 1) for pair in option["--model_args"].split(","))
told = {
    "arguments": sys.argv[1:],
    "model": arguments,
    "files": sorted(os.listdir(arguments["pretrained"])),
    "folder": os.getcwd(),
    "beside": sorted(os.listdir()),
    "path": sys.path,
    "environment": dict(os.environ),
    "input": sys.stdin.read(),
    "pid": os.getpid(),
}
(here / "told.new").write_text(json.dumps(told))
(here / "told.new").rename(here / "told.json")
does = option["--tasks"].split(",")[0]
if does == "fails":
    print("Loading \\x1b[31mweights\\x1b[0m\\r 10%")
    raise ValueError("no such \\x1b[2Jtask\\u202e")
if does == "says_little":
    sys.exit("it cannot be")
if does == "ends_at_once":
    os.kill(os.getpid(), 9)
if does == "writes_nothing":
    print("RuntimeError: the device is busy")
    sys.exit(0)
if does == "hangs":
    time.sleep(600)
out = Path(option["--output_path"], "checkpoint")
out.mkdir(parents=True)
out.joinpath("results_2026-11-30.json").write_bytes((here / "results.json").read_bytes())
"""


def install(folder: Path, patch: pytest.MonkeyPatch, results: bytes | None = None, name: str = "lm_eval") -> Path:
    """Install the stand-in, where every Python of this test finds it before the real one; the folder of its module."""
    module = folder / "installed" / name
    module.mkdir(parents=True)
    (module / "__init__.py").touch()
    (module / "__main__.py").write_text(textwrap.dedent(PROGRAM), "utf-8")
    (module / "results.json").write_bytes(LM_EVAL.read_bytes() if results is None else results)
    about = folder / "installed" / f"{name}-0.4.13.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.4.13\n", "utf-8")
    others = os.environ.get("PYTHONPATH", "")
    patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(folder / "installed"), others))))
    patch.syspath_prepend(folder / "installed")
    return module


def told(module: Path) -> dict[str, Any]:
    """How the stand-in was started."""
    found: dict[str, Any] = json.loads((module / "told.json").read_text("utf-8"))
    return found
