"""Writes docs/results.md between its markers, and the plots beside it, from what bench/results keeps."""

from collections.abc import Callable, Sequence
from pathlib import Path

from reproduce.ablations import ablation_sections
from reproduce.figures import FIGURES
from reproduce.form import QUICK
from reproduce.kept import Kept, read_kept
from reproduce.plots import form_words, plot_path, plots
from reproduce.tables import table_2, table_3, table_4
from reproduce.view import View

DOCS = Path(__file__).resolve().parents[2] / "docs"
BEGIN, END = "<!-- make reproduce writes from here -->", "<!-- to here -->"
TABLES: dict[str, Callable[[View], str]] = {"Table 2": table_2, "Table 3": table_3, "Table 4": table_4}


def write_page(docs: Path = DOCS) -> list[Path]:
    """Write the page and its plots. Returns what was written."""
    chosen = shown_of(read_kept())
    written = []
    for kept in chosen:
        view = View(kept.form, kept.known)
        for number, svg in plots(view).items():
            path = plot_path(view, number, docs / "results")
            path.write_text(svg, "utf-8")
            written.append(path)
    page = docs / "results.md"
    page.write_text(filled(page.read_text("utf-8"), chosen), "utf-8")
    return [*written, page]


def shown_of(every: Sequence[Kept]) -> list[Kept]:
    """One form of each preset: the full one, if anything is known of it."""
    found: dict[str, Kept] = {}
    for kept in sorted(every, key=lambda one: (one.form.preset, not one.form.quick)):
        if kept.outcomes:
            found[kept.form.preset] = kept
    return list(found.values())


def filled(page: str, chosen: Sequence[Kept]) -> str:
    """The page with what is between its markers written anew."""
    before, _, rest = page.partition(BEGIN)
    _, found, after = rest.partition(END)
    assert found, f"the page has lost its markers, {BEGIN} and {END}"
    text = "\n\n".join(section(kept) for kept in chosen) or "Nothing has been measured yet."
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


def section(kept: Kept) -> str:
    """All that is known of one form."""
    view = View(kept.form, kept.known)
    form = kept.form
    mark = f", quick form, {form.seeds_in_words}" if form.quick else ""
    parts = [f"## {form_words(view)}", _about(kept)]
    for title, make in TABLES.items():
        parts += [f"### {title} ({form.preset}{mark})", make(view)]
    for number, make in FIGURES.items():
        parts.append(f"### Figure {number} ({form.preset}{mark})")
        if view.bases:
            path = f"results/{plot_path(view, number, DOCS).name}"
            parts.append(f"![Figure {number}: {form_words(view)}]({path})")
        parts.append(make(view))
    for title, text in ablation_sections(view):
        parts += [f"### {title} ({form.preset}{mark})", text]
    return "\n\n".join(parts)


def _about(kept: Kept) -> str:
    form = kept.form
    made = f"{len(kept.outcomes)} of {kept.wanted} experiments are made"
    machine = ", ".join(f"{key} {value}" for key, value in kept.machine.items())
    epochs = f"{form.epochs} epoch{'s' if form.epochs > 1 else ''}"
    rows = f"Every step is distilled on {form.rows:,} of {form.all_rows:,} rows for {epochs}, as the preset says"
    if form.quick:
        intervals = ", no intervals" if len(form.seeds) == 1 else ""
        return (
            f"**This is the quick form: {form.seeds_in_words}, a small copy of the data{intervals}.** It shows which "
            "way wins on few rows, not what the method can do; a difference that is not told apart may be chance. "
            f"{rows} of its share of all rows, with `{'` and `'.join(QUICK)}`. {made}. Machine: {machine}."
        )
    return f"{rows}. {made}. Machine: {machine}."
