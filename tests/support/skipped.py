"""What was skipped and why, at the end of a test run: by reason, with the names of the tests."""

from collections import Counter, defaultdict

import pytest


def write_skipped(reporter: pytest.TerminalReporter) -> None:
    """A block of lines for each reason. Cases of a parametrized test are one line with their number."""
    by_reason: dict[str, Counter[str]] = defaultdict(Counter)
    for report in reporter.getreports("skipped"):
        _, _, reason = report.longrepr  # file, line, reason
        name, _, _ = report.nodeid.partition("[")
        by_reason[reason.removeprefix("Skipped: ")][name] += 1
    if by_reason:
        reporter.section("skipped")
    for reason, names in sorted(by_reason.items()):
        reporter.line(f"{names.total()} because {reason}", yellow=True)
        for name, cases in sorted(names.items()):
            reporter.line(f"    {name}" + (f" ({cases} cases)" if cases > 1 else ""))
