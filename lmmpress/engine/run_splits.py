"""The splits of a run: which rows each role has, and what the store keeps of them, so that a task fetches no more rows
than it computes with."""

from pydantic import BaseModel, ConfigDict, ValidationError

from lmmpress.data import Split, open_data, read_split, usual_splits
from lmmpress.data.facts import SplitFacts, facts_of
from lmmpress.errors import UserError
from lmmpress.plan import Plan, Splits
from lmmpress.result import ROLES, DataInfo, Role
from lmmpress.store import Store
from lmmpress.store.records import OF, SPLITS, Subjects


class RunSplits(BaseModel):
    """Name, rows and digest of the split of each role, and the facts of the splits that are measured on."""

    model_config = ConfigDict(frozen=True)

    data: list[DataInfo]
    facts: dict[Role, SplitFacts]

    def info(self, role: Role) -> DataInfo:
        """Name, rows and digest of a role's split."""
        return next(info for info in self.data if info.role == role)


def split_names(plan: Plan) -> dict[Role, str]:
    """The name of the data's split for each role: from the plan, or the usual names if the plan names no splits and the
    data has none of ours."""
    usual = usual_splits(open_data(plan.data)) if plan.splits == Splits() else {}
    return {role: usual.get(role) or getattr(plan.splits, role) for role in ROLES}


def split_of(plan: Plan, role: Role) -> Split:
    """The rows of a role in a plan."""
    limits = {"score": plan.importance.rows, "distill": plan.distillation.rows}
    return read_split(open_data(plan.data), split_names(plan)[role], limits.get(role))


def splits_of(plan: Plan) -> RunSplits:
    """The splits of a plan, from its data."""
    splits = {role: split_of(plan, role) for role in ROLES}
    infos = [
        DataInfo(split=split.name, role=role, rows=len(split.rows), digest=split.digest)
        for role, split in splits.items()
    ]
    measured = {"gate", "test", plan.tolerance.split}
    return RunSplits(data=infos, facts={role: facts_of(split) for role, split in splits.items() if role in measured})


def note_splits(store: Store, key: str, splits: RunSplits) -> None:
    """Keep the splits of a run in the store."""
    of = Subjects(checkpoints=[], data=sorted({info.digest for info in splits.data}))
    store.write_record(f"{SPLITS}{key}", splits.model_dump(mode="json") | {OF: of.model_dump()})


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
