"""A policy scanner for the chart's tests: checkov, in an environment of its own, because it pins a lot."""

import os
import shutil
import subprocess
import venv
from pathlib import Path

from filelock import FileLock

VERSION = "3.3.30"


def find_checkov() -> tuple[Path | None, str]:
    """The program, or the reason why there is none: CHECKOV's, else that of an environment created once."""
    if named := os.environ.get("CHECKOV"):
        return Path(named), ""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lmmpress" / f"checkov-{VERSION}"
    program = cache / "bin" / "checkov"
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{cache}.lock"):
            if not (cache / "whole").exists():
                make(cache)
        return program, ""
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", None) or str(error)
        return None, f"checkov {VERSION} cannot be had: {str(reason).strip()[-300:]}"


def make(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    command = [str(folder / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", f"checkov=={VERSION}"]
    subprocess.run(command, check=True, capture_output=True, text=True, encoding="utf-8")
    (folder / "whole").touch()
