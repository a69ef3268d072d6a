"""Rows that are learned from may not be measured on."""

from lmmpress.data.rows import METADATA, Split
from lmmpress.errors import UserError


def check_leak(learned: Split, measured: Split) -> str | None:
    """Raise UserError where a picture of the split that is measured on is also in the split that is learned from: under
    the same name, in whatever spelling, or as a file with the same bytes.

    Rows of text alone that both splits have are counted instead: a short question may well be asked twice. Returns the
    count in words, None where there are none.
    """
    by_digest = {digest: name for name, digest in learned.pictures.items()}
    for name, digest in measured.pictures.items():
        if digest in by_digest:
            other = by_digest[digest]
            also = "" if other == name else f" (under the name {other}: the files have the same bytes)"
            raise UserError(
                f"{measured.folder}: image {name} is in the {measured.name} and in the {learned.name} split{also}; "
                "take it out of one, since a model is not measured on what it learned from"
            )
    known = {(row.question, row.answer) for row in learned.rows if row.file_name is None}
    again = [row for row in measured.rows if row.file_name is None and (row.question, row.answer) in known]
    if not again:
        return None
    return (
        f"{measured.folder}: {len(again):,} of the {len(measured.rows):,} rows of the {measured.name} split have the "
        f"same question and answer as a row of the {learned.name} split, for instance line {again[0].line} of "
        f"{METADATA}: accuracy on them says little"
    )
