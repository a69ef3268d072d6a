"""`make bench` and `make bench-table`.

python -m tools.benches run [--only importance,cut] [--out out/bench]
python -m tools.benches table [FOLDER]
python -m tools.benches list
"""

import argparse
from pathlib import Path

from tools.benches.benches import BENCHES
from tools.benches.run import ROOT, chosen, run_all
from tools.benches.table import table


def main() -> int:
    parser = argparse.ArgumentParser(description="All benches, and one table of their figures.")
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="run benches, then print the table")
    running.add_argument("--only", default="", help="names, separated by commas")
    running.add_argument("--out", type=Path, default=Path("out/bench"))
    showing = commands.add_parser("table", help="print the table of a folder")
    showing.add_argument("folder", type=Path, nargs="?", default=ROOT / "docs/results")
    commands.add_parser("list", help="the benches, how long they take, and why some run only if they are named")
    arguments = parser.parse_args()
    if arguments.command == "list":
        for bench in BENCHES:
            print(f"{bench.name:<26}{bench.takes:<9}{bench.left_out and f'only if named: {bench.left_out}'}".rstrip())
        return 0
    if arguments.command == "table":
        print(table(arguments.folder))
        return 0
    good = run_all(chosen(arguments.only), arguments.out, lambda line: print(line, flush=True))
    print(f"\n{table(arguments.out)}")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
