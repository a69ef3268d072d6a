"""Task `compare`: compares the published result with the original, for those who put it into service."""

from pathlib import Path

from lmmpress.engine.kept import why_uncompared
from lmmpress.evaluation.comparison import Comparison
from lmmpress.host.whole_file import write_whole
from lmmpress.tasks.exit_codes import for_people
from lmmpress.tasks.outcome import Outcome, address_left, table
from lmmpress.tasks.session import working


@for_people
def compare(store: str, run: str, page: str) -> Outcome:
    """Compare the original with the result on the test split, keep that in the store, and write it as a page to the
    path `page`. The run has a result already, so a comparison that cannot be made does not fail the task: it says why,
    and there is no page."""
    from lmmpress.engine.compare_ends import compare_ends
    from lmmpress.reporting.comparison_page import render

    with working(store, run) as session:
        opened, known = session.run, session.known
        found = compare_ends(opened, known)
        session.state.release()
        left = address_left(opened.store, known[-1]) if known else opened.store.address(opened.original)
        if found is None:
            why = why_uncompared(opened.store, opened.key)
            return session.with_link(Outcome(left, table(["not compared"], [[why]])))
        Path(page).parent.mkdir(parents=True, exist_ok=True)
        write_whole(Path(page), render(found))
        return session.with_link(of_comparison(left, found))


def of_comparison(address: str, found: Comparison) -> Outcome:
    """Accuracy by task, with what is lost."""
    rows = [
        [
            task,
            one.rows,
            *(f"{accuracy:.4f}" for accuracy in one.accuracies),
            f"{one.drop:.4f} ({one.drop_interval.low:.4f} to {one.drop_interval.high:.4f})",
            f"{one.agreement:.4f}",
        ]
        for task, one in (found.by_task | {"all": found.all}).items()
    ]
    summary = table(["task", "rows", "original", "compressed", "lost (95 % interval)", "equal answers"], rows)
    faster = found.turns.samples_per_second.median if found.turns else None
    metrics = {"drop": found.all.drop, "agreement": found.all.agreement, "p": found.all.p, "times_as_fast": faster}
    return Outcome(address, summary, metrics)
