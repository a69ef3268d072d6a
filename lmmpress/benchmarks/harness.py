"""The two harnesses: which one a checkpoint goes to, the interpreter that has it, and its command line."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmmpress.benchmarks import start_harness
from lmmpress.errors import UserError
from lmmpress.files import own_types
from lmmpress.host.extras import is_installed
from lmmpress.host.offline import as_the_user_said
from lmmpress.host.processes import environment
from lmmpress.printing.one_line import printable

PYTHON = "LMMPRESS_HARNESS_PYTHON"
"""The variable that names the interpreter where no option does."""

_PROBE = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))"
_PATIENCE = 60  # seconds for an interpreter to say a version


@dataclass(frozen=True)
class Harness:
    """A harness: its name, as a module and as a package; the programs that it has; how to install it, behind the words
    "install it"; its model class for a checkpoint."""

    name: str
    programs: tuple[str, ...]
    install: str
    model: str


TEXT = Harness("lm_eval", ("lm-eval", "lm_eval"), "by pip install 'lmmpress[benchmarks]'", "hf")
PICTURES = Harness(
    "lmms_eval",
    ("lmms-eval",),
    "in an environment of its own, by pip install lmms_eval, and name that with --harness-python",
    start_harness.MODEL,
)


@dataclass(frozen=True)
class Installed:
    """A harness that an interpreter has."""

    harness: Harness
    python: Path
    version: str


def harness_for(auto_class: str) -> Harness:
    """The harness that checkpoints of this class of transformers go to."""
    return PICTURES if auto_class == "AutoModelForImageTextToText" else TEXT


def find(harness: Harness, python: Path | None, empty: Path) -> Installed:
    """The harness in the interpreter that the user names, by `python` or by LMMPRESS_HARNESS_PYTHON; or else in this
    one; or else in the one beside its program on PATH. `empty` is an empty folder.

    Raises UserError if no interpreter has it.
    """
    named = python or (Path(os.environ[PYTHON]) if os.environ.get(PYTHON) else None)
    if named is not None:
        file = Path(os.path.abspath(named.expanduser()))
        if not (file.is_file() and os.access(file, os.X_OK)):
            raise UserError(f"{named} is no program; {_named_by(python)} names the Python that has {harness.name}")
        version = _version(harness, file, empty)
        if version is None:
            raise UserError(f"{named} has no {harness.name}: install it there by {named} -m pip install {harness.name}")
        return Installed(harness, file, version)
    for found in _usual(harness):
        if version := _version(harness, found, empty):
            return Installed(harness, found, version)
    raise UserError(
        f"--tasks needs {harness.name} for this checkpoint, which is not installed: install it {harness.install}"
    )


def command(found: Installed, checkpoint: Path, config: dict[str, Any], results: Path) -> list[str]:
    """The command that measures a checkpoint with this config; what to measure comes behind it."""
    needs: dict[str, Any] = {"module": found.harness.name}
    arguments = {"pretrained": str(checkpoint), "trust_remote_code": "False"}
    if own_types.has_own_type(config):
        needs["types"] = {"file": str(Path(own_types.__file__).with_name(own_types.MODELING)), "classes": _classes()}
        if found.harness is TEXT:
            arguments["backend"] = "causal"
    if found.harness is PICTURES:
        needs["model"] = str(Path(start_harness.__file__).with_name("lmms_model.py"))
    joined = ",".join(f"{name}={value}" for name, value in arguments.items())
    start = [str(found.python), start_harness.__file__, json.dumps(needs)]
    return [*start, "--model", found.harness.model, "--model_args", joined, "--output_path", str(results)]


def variables() -> dict[str, str]:
    """The environment of a harness. It may fetch what its tasks name, unless the user works offline."""
    quiet = {"HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1", "WANDB_MODE": "disabled", "PYTHONUTF8": "1"}
    return as_the_user_said(environment(HF_DATASETS_TRUST_REMOTE_CODE="0", **quiet))


def _classes() -> list[tuple[str, ...]]:
    return [(own_types.OWN_PREFIX + plain, *names) for plain, names in own_types.CLASSES.items()]


def _usual(harness: Harness) -> Sequence[Path]:
    """Where the harness may be if nobody says: this interpreter, and those beside its programs on PATH."""
    found = [Path(sys.executable)] if is_installed(harness.name) else []
    for program in harness.programs:
        where = shutil.which(program)
        if where and os.path.isabs(where):
            beside = Path(where).resolve().with_name("python")
            found += [beside] if beside.is_file() else []
    return found


def _version(harness: Harness, python: Path, empty: Path) -> str | None:
    """The version of the harness that an interpreter has, or None."""
    try:
        done = subprocess.run(
            [str(python), "-c", _PROBE, harness.name],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd=empty,
            env=environment(),
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    said = printable(done.stdout.decode("utf-8", "replace"), 50)
    return said if done.returncode == 0 and said else None


def _named_by(python: Path | None) -> str:
    return PYTHON if python is None else "--harness-python"
