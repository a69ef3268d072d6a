"""The rows that a plan's run will use, before it begins: how many, and how long a few of them are."""

from pathlib import Path
from statistics import fmean

from lmmpress.engine.run_splits import split_of, turns_of
from lmmpress.errors import UserError
from lmmpress.lmm.anatomy import Anatomy
from lmmpress.lmm.encoder import Encoded, Encoder
from lmmpress.lmm.processor import load_processor
from lmmpress.plan import Plan
from lmmpress.printing.one_line import printable
from lmmpress.pruning.row_shapes import RoleRows, assumed_rows
from lmmpress.result import ROLES, Role

_LOOKED_AT = 256
"""The rows of a role whose tokens are counted: as many at most, evenly over it."""
_UNKNOWN = 16
"""The tokens of an answer that the teacher has not given yet."""


def expected_rows(plan: Plan, anatomy: Anatomy, teacher: Path) -> dict[Role, RoleRows]:
    """The rows of every role, for the model in this directory, whose weights are not read. UserError if data or
    processor cannot be read."""
    processor = load_processor(teacher)
    return {role: _rows_of(plan, role, anatomy, processor) for role in ROLES}


def rows_or_assumed(plan: Plan, anatomy: Anatomy, teacher: Path) -> tuple[dict[Role, RoleRows], str]:
    """The rows of every role; or, where data or processor cannot be read, rows that are assumed, and a line that says
    so."""
    try:
        return expected_rows(plan, anatomy, teacher), ""
    except UserError as error:
        rows, why = assumed_rows(plan, anatomy), error
    learnt = rows["distill"]
    said = f"{learnt.rows:,} rows of {learnt.tokens:g} tokens to distil, {rows['gate'].rows:,} for the gate"
    return rows, f"the rows are not known here ({printable(str(why), 100)}); assumed: {said}"


def _rows_of(plan: Plan, role: Role, anatomy: Anatomy, processor: object) -> RoleRows:
    split, turns = split_of(plan, role), turns_of(plan, role)
    few = [split.rows[at] for at in range(0, len(split.rows), -(-len(split.rows) // _LOOKED_AT))]
    with Encoder(split, processor, anatomy.config, turns=turns, template=plan.template) as encoder:
        encoded, decodes_apart = encoder.rows(few), encoder.decoder_start is not None
    answers = [_positions(one) or plan.evaluation.max_new_tokens or _UNKNOWN for one in encoded]
    tokens = [
        len(one.prompt) + (0 if decodes_apart else len(one.answer) or more)
        for one, more in zip(encoded, answers, strict=True)
    ]
    return RoleRows(
        rows=len(split.rows),
        tokens=fmean(tokens),
        longest=max(tokens),
        answers=fmean(answers),
        images=fmean(len(row.pictures) for row in few),
        pictures=len(split.images.names),
    )


def _positions(row: Encoded) -> int:
    """The answer positions of a row; each answer of an earlier turn ends with one more."""
    return len(row.answer) + sum(1 + end - start for start, end in row.earlier)
