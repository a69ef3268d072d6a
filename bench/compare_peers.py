"""Puts what people would use in place of lmmpress side by side with it, on the built-in sample.

    python bench/compare_peers.py [--seeds 1] [--rows 2250] [--folder DIR] [--tasks "ffn -1/2" ...]

Every way makes the same part of the language tower go, and learns for as long on the same rows (bench/peers/run.py has
the tasks); accuracy is that of the gate split, before and after. The test split is not used. bench/peers/
requirements.txt has the packages; one that is not installed is a row that says so. What is in DIR already is not made
again.
"""

import argparse
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from common import show
from peers.own import in_steps, learned
from peers.peer import Case, import_all
from peers.run import PEERS, TASKS, rows, unequal

from lmmpress.engine.materials import Materials
from lmmpress.plan import parse_plan
from lmmpress.presets import preset
from lmmpress.store import open_store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rows", type=int, default=2250)
    parser.add_argument("--folder", type=Path, default=Path("out/peers"))
    parser.add_argument("--tasks", nargs="*", default=[])
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    found: list[dict[str, Any]] = []
    for seed in range(arguments.seeds):
        plan = parse_plan(preset("sample"), (f"seed={seed}", f"distillation.rows={arguments.rows}"))
        store = open_store(str(folder / f"store-{arguments.rows}"))
        materials = Materials(plan, store, store.add_checkpoint(Path(plan.model)))
        warm_up(materials)
        import_all()
        deep = Case(TASKS[0], materials, materials.original, seed)
        starts = {False: materials.original, True: learned(deep, in_steps(deep))}
        found += rows(materials, starts, seed, folder, arguments.tasks)
    if wrong := unequal(found):
        raise SystemExit("sizes differ by more than 1 %: " + "; ".join(wrong))
    show(
        {
            "rows": arguments.rows,
            "tasks": found,
            "settings": {peer.name: dict(peer.settings) for peer in PEERS if peer.settings},
            "versions": {name: versioned(name) for name in sorted({peer.package for peer in PEERS} - {""})},
        }
    )


def warm_up(materials: Materials) -> None:
    """Make what all peers share, so that no row pays for it: encoded rows, features, the teacher's states."""
    for role in ("score", "distill", "gate"):
        materials.examples(role), materials.features(role)
    _ = materials.teacher_states
    materials.teacher_model.requires_grad_(False)


def versioned(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    main()
