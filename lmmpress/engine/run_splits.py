"""The splits of a run: which rows each role has, and what the store keeps of them, so that a task fetches no more rows
than it computes with."""

from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from lmmpress.data import Split, open_data, read_split, usual_splits
from lmmpress.data.facts import SplitFacts, facts_of
from lmmpress.errors import UserError
from lmmpress.lmm.row_reading import reading_of
from lmmpress.plan import Plan, Splits, Turns
from lmmpress.result import ROLES, DataInfo, Role, SkippedRow
from lmmpress.store import Store
from lmmpress.store.records import OF, SPLITS, Subjects

_MOST_NAMED = 1000  # rows


class RunSplits(BaseModel):
    """Name, rows and digest of the split of each role, and the facts of the splits that are measured on. `skipped_rows`
    faulty rows of the data were left out, the first of them are `skipped`.

    `readings` say how the model reads the rows of a role, where it reads them otherwise than plain rows of one turn
    (see `reading_of`).
    """

    model_config = ConfigDict(frozen=True)

    data: list[DataInfo]
    facts: dict[Role, SplitFacts]
    skipped_rows: int = 0
    skipped: list[SkippedRow] = []
    readings: dict[Role, dict[str, Any]] = {}

    def info(self, role: Role) -> DataInfo:
        """Name, rows and digest of a role's split."""
        return next(info for info in self.data if info.role == role)


def split_names(plan: Plan) -> dict[Role, str]:
    """The name of the data's split for each role: from the plan, or the usual names if the plan names no splits and the
    data has none of ours."""
    usual = usual_splits(open_data(plan.data), plan.reading) if plan.splits == Splits() else {}
    return {role: usual.get(role) or getattr(plan.splits, role) for role in ROLES}


def split_of(plan: Plan, role: Role) -> Split:
    """The rows of a role in a plan."""
    limits = {"score": plan.importance.rows, "distill": plan.distillation.rows}
    draw = plan.distillation.draw if role == "distill" else "even"
    name = split_names(plan)[role]
    return read_split(open_data(plan.data), name, limits.get(role), (), plan.reading, draw, plan.seed)


def turns_of(plan: Plan, role: Role) -> Turns:
    """Which answers of a role's rows count: what is measured is always the last one."""
    return plan.turns if role in ("score", "distill") else "last"


def splits_of(plan: Plan) -> RunSplits:
    """The splits of a plan, from its data."""
    return _described(plan, {role: split_of(plan, role) for role in ROLES})


def splits_as_before(plan: Plan) -> RunSplits | None:
    """The splits of a plan with the digests of earlier versions; None for rows that these could not read."""
    splits = {role: split_of(plan, role) for role in ROLES}
    before = {role: replace(split, digest=split.old_digest) for role, split in splits.items() if split.old_digest}
    return _described(plan, before) if len(before) == len(splits) else None


def _described(plan: Plan, splits: dict[Role, Split]) -> RunSplits:
    infos = [
        DataInfo(split=split.name, role=role, rows=len(split.rows), digest=split.digest)
        for role, split in splits.items()
    ]
    measured = {"gate", "test", plan.tolerance.split}
    facts = {role: facts_of(split) for role, split in splits.items() if role in measured}
    index = next(iter(splits.values())).index
    skipped = index.skipped if index else []
    named = [SkippedRow(place=place, why=why) for place, why in skipped[:_MOST_NAMED]]
    readings = {role: reading_of(split, turns_of(plan, role), plan.template) for role, split in splits.items()}
    return RunSplits(
        data=infos,
        facts=facts,
        skipped_rows=len(skipped),
        skipped=named,
        readings={role: found for role, found in readings.items() if found},
    )


def note_splits(store: Store, key: str, splits: RunSplits) -> None:
    """Keep the splits of a run in the store."""
    of = Subjects(checkpoints=[], data=sorted({info.digest for info in splits.data}))
    left_out = set() if splits.readings else {"readings"}
    store.write_record(f"{SPLITS}{key}", splits.model_dump(mode="json", exclude=left_out) | {OF: of.model_dump()})


def noted_splits(store: Store, key: str) -> RunSplits | None:
    """The splits of a run as the store has them; None if an earlier version of lmmpress began the run."""
    record = store.read_record(f"{SPLITS}{key}")
    if record is None:
        return None
    try:
        return RunSplits.model_validate({name: value for name, value in record.items() if name != OF})
    except ValidationError:
        raise UserError(
            f"{store.root_address}: records/{SPLITS}{key}.json describes no splits; remove it, and begin the run again"
        ) from None
