"""Checks that accuracy is not measured on data that was trained on."""

from lmmpress.data.rows import Split
from lmmpress.errors import UserError


def check_leak(learned: Split, measured: Split) -> str | None:
    """Raise UserError if an image of the measured split is also in the training split `learned`: with the same name,
    however it is spelled, or with the same bytes.

    Text-only rows in both splits are no error, since short questions repeat. They are counted: returns a warning with
    the count, or None if there are none.
    """
    name_of = {digest: name for name, digest in learned.pictures.items()}
    for name, digest in measured.pictures.items():
        if digest in name_of:
            other = name_of[digest]
            also = "" if other == name else f" (under the name {other}: the files have the same bytes)"
            raise UserError(
                f"{measured.folder}: image {name} is in the {measured.name} and in the {learned.name} split{also}; "
                "remove it from one of them: accuracy must not be measured on training data"
            )
    known = {(row.question, row.answer) for row in learned.rows if not row.pictures}
    repeated = [row for row in measured.rows if not row.pictures and (row.question, row.answer) in known]
    if not repeated:
        return None
    return (
        f"{measured.folder}: {len(repeated):,} of the {len(measured.rows):,} rows of the {measured.name} split have "
        f"the same question and answer as a row of the {learned.name} split, for instance {repeated[0].place}: "
        "accuracy on them says little"
    )
