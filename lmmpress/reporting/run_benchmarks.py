"""Benchmarks of the two ends of a run: kept beside its result, and shown on its report."""

from collections.abc import Sequence
from pathlib import Path

from lmmpress.benchmarks import Benchmark, keep, kept_benchmarks
from lmmpress.errors import UserError
from lmmpress.files.digest import digest_checkpoint
from lmmpress.reporting.page import read_result, report_of


def end_of(run: Path, checkpoint: Path) -> str:
    """The digest of a checkpoint that is one of the two ends of the run in that folder.

    Raises UserError if it is another checkpoint, or if the folder holds no finished run.
    """
    result = read_result(run)
    kept_benchmarks(run)  # a damaged file is told before the work
    digest = digest_checkpoint(checkpoint)
    if digest not in (result.original.checkpoint, result.compressed.checkpoint):
        raise UserError(f"{checkpoint} is neither the original nor the compressed model of the run in {run}")
    return digest


def add_to(run: Path, checkpoint: str, numbers: Sequence[Benchmark]) -> Path:
    """Keep the numbers of the checkpoint with that digest in a run's folder, and write its report anew; its path."""
    keep(run, checkpoint, numbers)
    return report_of(run)
