"""Writes the pages about a run into its folder on this machine: the report, and the comparison if there is one."""

from pathlib import Path

from lmmpress.engine.kept import kept_comparison, kept_disagreements
from lmmpress.engine.run_folder import plan_in
from lmmpress.plan import Plan
from lmmpress.reporting import keep_rows, write_comparison, write_report
from lmmpress.result import Result
from lmmpress.store import open_store


def write_pages(plan: Plan, out: Path, result: Result) -> None:
    """Write report.html of the run of a plan in the folder `out`, and with `compare` the comparison of its ends that
    its store keeps, if it could be made. The rows on which the ends disagree are kept beside the result too, so that
    `report` finds them."""
    store = open_store(plan.store or str(out / "store"))
    rows = kept_disagreements(store, result.run_key)
    if rows:
        keep_rows(out, rows)
    numbered = plan if plan.in_numbers else plan_in(out)
    write_report(result, numbered, out / "report.html", rows)
    if plan.compare and (kept := kept_comparison(store, result.run_key)):
        write_comparison(kept, out)
