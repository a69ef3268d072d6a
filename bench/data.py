"""Measures the memory that a data set of many rows needs, and how long its index takes to make.

    python bench/data.py [--rows 10000 1000000] [--forms text pictures] [--at FOLDER]

The rows are made up: short questions, either without pictures and with a split each (`text`, an imagefolder), or each
with a small picture of its own and without a split (`pictures`, WebDataset shards), so that they are divided. Every
measurement is a process of its own on a data set whose index does not exist yet: `reading` reads the splits, `encoding`
one of them as inputs of the sample's model. Its peak memory is VmHWM, which is
noted after each phase: a phase that does not raise it needs no more than one before. With `--at` the data sets stay in
that folder, and are used again.
"""

import argparse
import io
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROLES = ("score", "distill", "gate", "test")
SHARES = (4, 8, 9, 10)  # tenths of the rows, up to the end of each role
SHARD = 10_000  # samples
SIDE = 8  # pixels
TAKEN = 50  # batches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--measures", nargs="+", choices=MEASURES, default=list(MEASURES))
    parser.add_argument("--at", type=Path)
    parser.add_argument("--alone", nargs=2, metavar=("MEASURE", "DATA"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        measure, data = arguments.alone
        print(json.dumps(phases(MEASURES[measure](Path(data)))))
        return
    from common import show  # torch comes with it, which the measurements do without

    with tempfile.TemporaryDirectory(prefix="lmmpress-bench-") as name:
        kept = arguments.at or Path(name)
        found: dict[str, Any] = {}
        for form in arguments.forms:
            sizes = {rows: made(kept / f"{form}-{rows}", FORMS[form], rows) for rows in arguments.rows}
            for measure in arguments.measures:
                if (measure, form) == ("encoding", "text"):  # the sample's model needs pictures
                    continue
                found.setdefault(measure, {})[form] = compared(measure, sizes, Path(name))
        show(found)


def compared(measure: str, sizes: dict[int, Path], cache: Path) -> dict[str, Any]:
    """What a measurement finds for the data set of each number of rows, and what most rows need more than fewest."""
    found = {rows: alone(measure, folder, cache / "cache") for rows, folder in sizes.items()}
    for rows, one in found.items():
        one["index_rows_per_second"] = round(rows / one["seconds"]["index"])
        print(f"{measure}, {rows:,} rows: {one['peak_mb']:.0f} MB", file=sys.stderr)
    least, most = found[min(sizes)]["peak_mb"], found[max(sizes)]["peak_mb"]
    return {"by_rows": found, "most_over_least": most / least, "most_less_least_mb": most - least}


def alone(measure: str, folder: Path, cache: Path) -> dict[str, Any]:
    """What a process finds that only makes this measurement, with an empty cache."""
    shutil.rmtree(cache, ignore_errors=True)
    command = [sys.executable, __file__, "--alone", measure, str(folder)]
    environment = os.environ | {"LMMPRESS_CACHE": str(cache)}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, encoding="utf-8", check=True, env=environment)
    return dict(json.loads(done.stdout))


def phases(names: Iterator[str]) -> dict[str, Any]:
    """The peak memory in MB after each phase of a measurement, and its seconds; each phase gives its name at its
    end."""
    peaks, seconds, begun = {}, {}, time.perf_counter()
    for name in names:
        now = time.perf_counter()
        peaks[name], seconds[name], begun = peak(), round(now - begun, 2), now
    return {"peak_mb": peak(), "peak_mb_after": peaks, "seconds": seconds}


def peak() -> float:
    """The most resident memory that this process had so far, in MB."""
    # not getrusage, which a child inherits from whoever started it
    (line,) = (line for line in Path("/proc/self/status").read_text("utf-8").splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


def reading(folder: Path) -> Iterator[str]:
    """Reads the splits of a data set as a run does before its first step, and goes over all rows."""
    from lmmpress.data import read_split
    from lmmpress.data.facts import facts_of
    from lmmpress.data.index import open_index
    from lmmpress.data.leaks import check_leak
    from lmmpress.data.rows import check_unchanged
    from lmmpress.settings.reading import Reading

    yield "imports"
    open_index(folder, Reading())
    yield "index"
    splits = {}
    for role in ROLES:
        splits[role] = read_split(folder, role)
        yield f"split {role}"
    for role in ROLES:
        len(splits[role].pictures)
    yield "pictures"
    for measured in ("gate", "test"):
        for learned in ("score", "distill"):
            check_leak(splits[learned], splits[measured])
        facts_of(splits[measured])
    yield "leaks and facts"
    for split in splits.values():
        for row in split.rows:
            assert row.question
    yield "all rows"
    for split in splits.values():
        check_unchanged(split)
    yield "unchanged"
    for role in ("score", "distill"):
        for draw in ("even", "random", "by_task"):
            read_split(folder, role, limit=1000, draw=draw)
    yield "draws"


def encoding(folder: Path) -> Iterator[str]:
    """Encodes the split to distil on with the sample's checkpoint, as a run does, writes its examples to a file, reads
    them back, shuffles them, and takes some batches with their pictures."""
    import torch

    from lmmpress.data import read_split
    from lmmpress.lmm.batches import Batches, grouped
    from lmmpress.lmm.examples import encode, read_examples
    from lmmpress.lmm.processor import load_processor
    from lmmpress.lmm.read_anatomy import complete, read_config
    from lmmpress.presets import preset

    checkpoint = Path(preset("sample")["model"])
    processor, config = load_processor(checkpoint), complete(read_config(checkpoint))
    yield "imports"
    split = read_split(folder, "distill")
    yield "index"
    with tempfile.TemporaryDirectory() as name:
        encode(split, processor, config).save(Path(name) / "examples")
        yield "tokens"
        examples = read_examples(Path(name) / "examples", split, processor, config)
    order = grouped(examples, 64, torch.Generator().manual_seed(0))
    yield "shuffle"
    for batch in Batches(examples, order[:TAKEN]):
        assert (batch.pixels is None) == (examples.pixels is None)
    yield "batches"


MEASURES: dict[str, Callable[[Path], Iterator[str]]] = {"reading": reading, "encoding": encoding}
"""What is measured: generators that give the name of each phase at its end; one of them is `index`."""


def made(folder: Path, write: Callable[[Path, int], None], rows: int) -> Path:
    """A data set of so many rows; as it is if it is there."""
    if not folder.exists():
        new = folder.with_name(f"{folder.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        write(new, rows)
        new.rename(folder)
    return folder


def write_text(folder: Path, rows: int) -> None:
    """An imagefolder without pictures, each row with a split."""
    with (folder / "metadata.jsonl").open("w", encoding="utf-8") as file:
        for number in range(rows):
            split = next(role for role, end in zip(ROLES, SHARES, strict=True) if number % 10 < end)
            file.write(json.dumps({**texts(number), "split": split}) + "\n")


def write_pictures(folder: Path, rows: int) -> None:
    """WebDataset shards, each sample a picture and its texts."""
    chance = random.Random(0)
    for begun in range(0, rows, SHARD):
        with (folder / f"part-{begun // SHARD:05}.tar").open("wb") as file:
            for number in range(begun, min(begun + SHARD, rows)):
                file.write(member(f"{number:08}.png", png(chance.randbytes(3 * SIDE * SIDE))))
                file.write(member(f"{number:08}.json", json.dumps(texts(number)).encode()))
            file.write(bytes(2 * tarfile.BLOCKSIZE))


FORMS: dict[str, Callable[[Path, int], None]] = {"text": write_text, "pictures": write_pictures}


def texts(number: int) -> dict[str, str]:
    words = f"Which number comes after {number} when you count in steps of {number % 7 + 1}?"
    return {"question": words, "answer": str(number + number % 7 + 1), "task": f"task {number % 3}"}


def member(name: str, content: bytes) -> bytes:
    """A file of a tar."""
    header = tarfile.TarInfo(name)
    header.size = len(content)
    return header.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % tarfile.BLOCKSIZE)


def png(pixels: bytes) -> bytes:
    """A picture of SIDE x SIDE pixels in RGB."""
    lines = b"".join(b"\0" + pixels[at : at + 3 * SIDE] for at in range(0, len(pixels), 3 * SIDE))
    written = io.BytesIO(b"\x89PNG\r\n\x1a\n")
    written.seek(0, io.SEEK_END)
    about = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    for kind, content in ((b"IHDR", about), (b"IDAT", zlib.compress(lines, 1)), (b"IEND", b"")):
        written.write(struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content)))
    return written.getvalue()


if __name__ == "__main__":
    main()
