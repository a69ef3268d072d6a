"""Measures the check of all rows before a run's first step: against nothing but decoding the same pictures.

    python bench/row_check.py [--rounds 5] [--rows 2000]

The rows are the sample's; both go over the pictures with the same threads. The check also encodes every row.
"""

import argparse
from pathlib import Path

from common import paired, show

from lmmpress.data import read_split
from lmmpress.data.rows import open_images
from lmmpress.lmm.examples import check_rows
from lmmpress.lmm.processor import load_processor
from lmmpress.lmm.read_anatomy import complete, read_config
from lmmpress.presets import preset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=2000)
    arguments = parser.parse_args()
    plan = preset("sample")
    split = read_split(Path(plan["data"]), "distill", arguments.rows)
    processor, config = load_processor(Path(plan["model"])), complete(read_config(Path(plan["model"])))

    def check() -> None:
        check_rows(split, processor, config)

    def decode() -> None:
        for _ in open_images(split):
            pass

    found = paired(decode, check, arguments.rounds)
    show({"rows": len(split.rows), "images": len(split.images.names), "speed_of_plain_decoding": found["ratio"]})


if __name__ == "__main__":
    main()
