"""The result of a run is left in its folder: the compressed checkpoint and result.json."""

import shutil
from pathlib import Path

from lmmpress.engine.parts.load import load_as_users_do
from lmmpress.engine.run import Run
from lmmpress.engine.run_folder import COMPRESSED, RESULT, write
from lmmpress.files.allow_list import choose, lay_out
from lmmpress.lmm.checkpoint import write_record
from lmmpress.lmm.fit import correct_files
from lmmpress.lmm.read_anatomy import complete, read_config
from lmmpress.lmm.record import read_record
from lmmpress.result import Result


def deliver(run: Run, result: Result, out: Path) -> None:
    """Leave the result of a run in its folder: the final checkpoint, which says what became of its teacher, once plain
    transformers has loaded it; and result.json. Each is there whole or not at all."""
    load_as_users_do(run.materials, result.compressed.checkpoint)
    aside, target = out / f"{COMPRESSED}.new", out / COMPRESSED
    shutil.rmtree(aside, ignore_errors=True)
    try:
        # a store's files may not be written to; a user's copies may: permissions stay behind
        aside.mkdir()
        lay_out(choose(run.store.checkpoint(result.compressed.checkpoint)), aside)
        correct_files(aside, complete(read_config(aside)))  # of an original that is delivered as it is
        told = {"teacher": run.original, "plan": run.plan.model_dump(mode="json"), "run_key": run.key}
        write_record(aside, {"format": 1, "history": []} | (read_record(aside) or {}) | told)
        if target.exists():
            shutil.rmtree(target)
        aside.rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    write(out / RESULT, result.model_dump_json(indent=1))
