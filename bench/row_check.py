"""Measures the check of all rows before a run's first step: against nothing but decoding the same pictures.

    python bench/row_check.py [--rounds 7] [--rows 2000] [--photos 300]

Both go over the pictures with the same threads; the check also encodes every row. `sample` are the sample's rows, three
about each picture of 64 x 64 pixels; `photos` are three rows about each JPEG of 640 x 480 pixels.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import paired, show
from PIL import Image

from lmmpress.data import Split, read_split
from lmmpress.data.rows import open_images
from lmmpress.lmm.examples import check_rows
from lmmpress.lmm.processor import load_processor
from lmmpress.lmm.read_anatomy import complete, read_config
from lmmpress.presets import preset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--photos", type=int, default=300)
    arguments = parser.parse_args()
    plan = preset("sample")
    sample = read_split(Path(plan["data"]), "distill", arguments.rows)
    processor, config = load_processor(Path(plan["model"])), complete(read_config(Path(plan["model"])))

    def compared(split: Split) -> dict[str, Any]:
        def decode() -> None:
            for _ in open_images(split):
                pass

        found = paired(decode, lambda: check_rows(split, processor, config), arguments.rounds)
        return {
            "rows": len(split.rows),
            "images": len(split.images.names),
            "speed_of_plain_decoding": found["ratio"],
        }

    with tempfile.TemporaryDirectory(prefix="lmmpress-bench-") as name:
        write_photos(Path(name), sample, arguments.photos)
        show({"sample": compared(sample), "photos": compared(read_split(Path(name), "distill"))})


def write_photos(folder: Path, sample: Split, count: int) -> None:
    """An imagefolder of so many photos, with the questions and answers of the sample's rows."""
    chance = np.random.default_rng(0)
    with (folder / "metadata.jsonl").open("w", encoding="utf-8") as file:
        for number, row in zip(range(3 * count), sample.rows, strict=False):
            name = f"{number // 3}.jpg"
            coarse = Image.fromarray(chance.integers(0, 256, (48, 64, 3), dtype=np.uint8), "RGB")
            coarse.resize((640, 480)).save(folder / name, quality=90)
            line = {"file_name": name, "question": row.question, "answer": row.answer, "split": "distill"}
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
