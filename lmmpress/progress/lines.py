"""A report as a line for people, and as values for programs."""

from typing import Any

from lmmpress.printing.numbers import in_bytes, in_rate, in_time
from lmmpress.progress.pulse import Report


def in_words(report: Report) -> str:
    """A report in one line: `block, step 2 of 4: distill: distil 13 of 48 (27 %), 26/min, 1:21 left; ...`."""
    place = [report.part.step, report.part.name] if report.part else []
    names = [name for name in (*place, report.label) if name]
    where = ": ".join(dict.fromkeys(names))  # a part that counts nothing has its own label
    if report.over:
        return f"{where}: done in {in_time(report.seconds)}"
    said = [f"{where}{_how_far(report)}"]
    if report.rate is not None:
        said.append(f"{in_bytes(round(report.rate))}/s" if report.unit == "bytes" else in_rate(report.rate))
    if report.seconds >= 1 and report.total is None:
        said.append(f"{in_time(report.seconds)} so far")
    if report.seconds_left is not None:
        said.append(f"{'' if report.rate else 'about '}{in_time(report.seconds_left)} left")
    words = ", ".join(said)
    if report.run_seconds_left is not None:
        words += f"; run: at most {in_time(report.run_seconds_left)} to its last step"
    return words


def as_values(report: Report) -> dict[str, Any]:
    """A report for programs, numbers rounded; None where something is not known."""
    part = report.part
    return {
        "part": part.name if part else None,
        "step": (part.step or None) if part else None,
        "work": report.label,
        "done": report.done,
        "total": report.total,
        "unit": report.unit if report.total is not None else None,
        "rate": None if report.rate is None else float(f"{report.rate:.4g}"),
        "seconds": round(report.seconds, 1),
        "seconds_left": _rounded(report.seconds_left),
        "run_seconds_left": _rounded(report.run_seconds_left),
        "over": report.over,
    }


def _how_far(report: Report) -> str:
    if report.total is None or report.done is None:
        return ""
    done, total = report.done, report.total
    counted = f"{in_bytes(done)} of {in_bytes(total)}" if report.unit == "bytes" else f"{done:,} of {total:,}"
    return f" {counted}" + (f" ({100 * done // total} %)" if total else "")


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
