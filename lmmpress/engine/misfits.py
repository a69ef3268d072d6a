"""What to do about rows that do not fit the model where the plan leaves out faulty ones.

Faulty rows are left out when the rows are read, which is without a model: so the digests of the rows, and which split
each is in, are the same for every model and on every machine. Rows that do not fit a model are left out beforehand.
"""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager

from lmmpress.errors import UserError
from lmmpress.lmm.encoder import MisfitError
from lmmpress.plan import Plan


@contextmanager
def naming_the_way_out(plan: Plan) -> Iterator[None]:
    """With `data_errors: skip`, add to the refusal of a row that does not fit the model how to leave out all such
    rows."""
    try:
        yield
    except MisfitError as error:
        if plan.data_errors != "skip":
            raise
        renamed = "; its columns have our names, so columns goes from the plan" if plan.columns else ""
        raise UserError(
            f"{error}; data_errors: skip knows no model, so leave out all rows that do not fit it beforehand: "
            f"{way_out(plan)} writes a copy without them{renamed}"
        ) from error


def way_out(plan: Plan) -> str:
    """The command that writes a copy of a plan's data without the rows that do not fit its model."""
    words = ["lmmpress", "data", plan.data, "--checkpoint", plan.model]
    for name, theirs in plan.columns.items():
        words += ["--column", f"{name}={theirs if isinstance(theirs, str) else theirs.model_dump_json()}"]
    if plan.reading.unlabelled:
        words.append("--unlabelled")
    if plan.turns != "last":
        words += ["--turns", plan.turns]
    if plan.template != "auto":
        words += ["--template", plan.template]
    return shlex.join([*words, "--fix", "OUT"])
