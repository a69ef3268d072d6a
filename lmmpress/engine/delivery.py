"""Writes the result of a run into its folder: the compressed checkpoint and result.json."""

import shutil
from pathlib import Path

from lmmpress.engine.parts.load import load_as_users_do
from lmmpress.engine.run import Run
from lmmpress.engine.run_folder import COMPRESSED, RESULT, write
from lmmpress.files.allow_list import choose, lay_out
from lmmpress.lmm.checkpoint import write_record
from lmmpress.lmm.compatibility import correct_files
from lmmpress.lmm.compression_record import read_record
from lmmpress.lmm.read_anatomy import complete, read_config
from lmmpress.result import Result


def deliver(run: Run, result: Result, out: Path) -> None:
    """Write the result of a run into its folder: first check that plain transformers loads the final checkpoint, then
    write it with its COMPRESSION.json, then result.json. Each is written atomically."""
    load_as_users_do(run.materials, result.compressed.checkpoint)
    draft, target = out / f"{COMPRESSED}.new", out / COMPRESSED
    shutil.rmtree(draft, ignore_errors=True)
    try:
        # copied without permissions: files of a store are read-only, a user's copies are not
        draft.mkdir()
        lay_out(choose(run.store.checkpoint(result.compressed.checkpoint)), draft)
        correct_files(draft, complete(read_config(draft)))  # an original that is delivered unchanged may need it
        entries = {"teacher": run.original, "plan": run.plan.model_dump(mode="json"), "run_key": run.key}
        write_record(draft, {"format": 1, "history": []} | (read_record(draft) or {}) | entries)
        if target.exists():
            shutil.rmtree(target)
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    write(out / RESULT, result.model_dump_json(indent=1))
