"""One self-contained HTML page about a run, and one about two checkpoints that were compared."""

from lmmpress.reporting.comparison_page import check_folder, write_comparison
from lmmpress.reporting.page import report_of, write_report
from lmmpress.reporting.rows import keep_rows
from lmmpress.reporting.run_benchmarks import add_to, end_of

__all__ = ["add_to", "check_folder", "end_of", "keep_rows", "report_of", "write_comparison", "write_report"]
