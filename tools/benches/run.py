"""Runs benches one after another. What a folder has a result of is not run again."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tools.benches.benches import BENCHES, Bench

ROOT = Path(__file__).resolve().parents[2]


def chosen(only: str, benches: Sequence[Bench] = BENCHES) -> list[Bench]:
    """The benches that `only` names, separated by commas; without a name those that are not left out. SystemExit with
    one line if one of the names is none of theirs."""
    names = [name.strip() for name in only.split(",") if name.strip()]
    known = {bench.name: bench for bench in benches}
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(f"ONLY={only}: there is no bench {unknown[0]!r}; there are {', '.join(known)}")
    return [known[name] for name in names] if names else [bench for bench in benches if not bench.left_out]


def run_all(benches: Sequence[Bench], folder: Path, say: Callable[[str], None] = print, root: Path = ROOT) -> bool:
    """Run the benches of which the folder has no result. Whether none failed; one that fails does not stop the rest."""
    folder.mkdir(parents=True, exist_ok=True)
    good = True
    for bench in benches:
        kept = folder / f"{bench.name}.json"
        if kept.exists():
            say(f"{bench.name}: done before; remove {kept} to measure again")
            continue
        say(f"{bench.name}: {bench.takes}")
        begun = time.monotonic()
        result = _result(bench, folder / f"{bench.name}.log", root)
        if result is None:
            good = False
            say(f"{bench.name}: failed; {folder / f'{bench.name}.log'} says why")
            continue
        partial = kept.with_suffix(".partial")
        partial.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
        partial.replace(kept)
        say(f"{bench.name}: {time.monotonic() - begun:.0f} s")
    return good


def _result(bench: Bench, log: Path, root: Path) -> Any:
    """What a bench prints; None if it fails or if that is not JSON. Its messages go to `log`."""
    log.unlink(missing_ok=True)
    if not bench.parts:
        return _printed(bench, bench.arguments, log, root)
    parts = {name: _printed(bench, arguments, log, root) for name, arguments in bench.parts}
    return None if None in parts.values() else parts


def _printed(bench: Bench, arguments: Sequence[str], log: Path, root: Path) -> Any:
    """Messages of the process are appended to `log`."""
    environment = os.environ | {"OMP_NUM_THREADS": str(bench.threads), "PYTHONPATH": str(root)}
    with log.open("a", encoding="utf-8") as messages:
        done = subprocess.run(
            [sys.executable, root / bench.file, *arguments],
            stdout=subprocess.PIPE,
            stderr=messages,
            cwd=root,
            env=environment,
            text=True,
            encoding="utf-8",
        )
        if done.returncode:
            messages.write(f"it ended with status {done.returncode}\n")
            return None
        try:
            return json.loads(done.stdout)
        except ValueError:
            messages.write(f"it did not print JSON: {done.stdout[-1000:]}\n")
            return None
