"""Makes the experiments, then the tables and plots of docs/results.md.

    PYTHONPATH=bench python -m reproduce run [--quick] [--presets sample sample-hard] [--seeds 3] [--jobs 2]
    PYTHONPATH=bench python -m reproduce list    how many experiments there are, and how long they are likely to take
    PYTHONPATH=bench python -m reproduce write   the page and its plots, from what is kept in bench/results

What is in the folder already is not made again; stopped at any time, the same command goes on where it was.
"""

import argparse
import signal
from pathlib import Path
from types import FrameType

from common import processor

from reproduce.catalogue import base, everything, fill
from reproduce.form import Form, form_of
from reproduce.kept import kept_of
from reproduce.places import Places
from reproduce.runner import Runner, totals


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("run", "list", "write"))
    parser.add_argument("--quick", action="store_true", help="a part of the rows, and one seed if no number is given")
    parser.add_argument("--presets", nargs="+", default=["sample", "sample-hard"])
    parser.add_argument("--seeds", type=int, help="three by default; one in the quick form")
    parser.add_argument("--jobs", type=int, default=2, help="experiments at a time, with one thread each")
    parser.add_argument("--folder", type=Path, help="out/reproduce or out/reproduce-quick by default")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupted)
    good = True
    if arguments.command != "write":
        folder = arguments.folder or Path("out/reproduce-quick" if arguments.quick else "out/reproduce")
        for name in arguments.presets:
            form = form_of(name, arguments.quick, arguments.seeds)
            if form is None:
                print(f"{name}: there is no such preset; it is left out", flush=True)
                continue
            print(f"{form.name}: {totals(list(everything(form)), arguments.jobs)}", flush=True)
            if arguments.command == "run":
                try:
                    good = made(form, Places(folder), arguments.jobs) and good
                except KeyboardInterrupt:
                    print("stopped; the same command goes on from here", flush=True)
                    return 130
    if arguments.command != "list":
        from reproduce.page import write_page  # which draws: a run begins sooner without

        for path in write_page():
            print(path, flush=True)
    return 0 if good else 1


def made(form: Form, places: Places, jobs: int) -> bool:
    """Make the experiments of a form, and keep their outcomes. Whether none failed.

    Those that others build on come first, so that what they share, such as the teacher's states, is made once."""
    mark = f"quick form, {form.seeds_in_words}: " if form.quick else ""

    def say(line: str) -> None:
        print(f"{mark}{line}", flush=True)

    try:
        bases = [base(form, seed) for seed in form.seeds]
        groups = ([fill(form)], bases, everything(form))
        return all([Runner(group, places, jobs, say).run() for group in groups])
    finally:
        print(kept_of(form, places.known, processor).write(), flush=True)


def _interrupted(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    raise SystemExit(main())
