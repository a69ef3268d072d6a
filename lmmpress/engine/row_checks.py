"""Every row of every split is checked before the first step, so that no run ends late at a row of its test split."""

from dataclasses import dataclass
from pathlib import Path

from lmmpress.data import Split
from lmmpress.data.leaks import check_leak
from lmmpress.engine.materials import split_names, split_of
from lmmpress.files.allow_list import INDEX, RECORD, choose
from lmmpress.files.digest import sha256_by_name
from lmmpress.lmm.examples import check_rows
from lmmpress.lmm.processor import load_processor
from lmmpress.lmm.read_anatomy import complete, read_config
from lmmpress.plan import Plan, digest_of
from lmmpress.progress import say_once
from lmmpress.result import ROLES, Role
from lmmpress.store import Store
from lmmpress.store.records import OF, Subjects

_VERSION = 1


@dataclass(frozen=True)
class Checked:
    """Rows that were found to be good for a model; `name` says which rows and which model, `data` are the digests of
    their splits."""

    name: str
    told: dict[str, int]
    data: list[str]

    def note(self, store: Store) -> None:
        """Let a store know, so that they are not checked again."""
        if store.read_record(self.name) is None:
            of = Subjects(checkpoints=[], data=self.data)
            store.write_record(self.name, {**self.told, OF: of.model_dump()})


def read_splits(plan: Plan) -> dict[Role, Split]:
    """The rows of every role, none of which is both learned from and measured on.

    Says on stderr how the usual splits of a data set are used, and how many rows of text are in two splits. Raises
    UserError for rows that are malformed, and for an image that is learned from and measured on.
    """
    names = split_names(plan)
    if any(names[role] != getattr(plan.splits, role) for role in ROLES):
        say_once(
            f"{plan.data}: the plan names no splits and the data has the usual ones: {names['score']} scores and "
            f"distils, {names['gate']} is the gate's, {names['test']} tests"
        )
    splits = {role: split_of(plan, role) for role in ROLES}
    measuring: tuple[Role, ...] = ("gate", "test")
    learning: tuple[Role, ...] = ("score", "distill")
    for role in measuring:
        for other in learning:
            # a plan that names one split for both means it
            if names[role] != names[other] and (words := check_leak(splits[other], splits[role])):
                say_once(words)
    return splits


def check_all_rows(plan: Plan, teacher: Path, known: Store | None = None) -> Checked | None:
    """See that every row of every role fits the model: pictures are decoded, prompts and answers counted in tokens.

    What the store `known` knows to be good is not done again. With `data_checks: lazy` nothing is done, and how much
    that is is said. Raises UserError for the first fault that is found.
    """
    splits = read_splits(plan)
    distinct = {split.digest: split for split in splits.values()}
    told = {
        "rows": sum(len(split.rows) for split in distinct.values()),
        "images": len(set().union(*(split.pictures for split in distinct.values()))),
    }
    counted = f"{told['rows']:,} rows and {told['images']:,} images"
    if plan.data_checks == "lazy":
        say_once(f"{plan.data}: data_checks is lazy: {counted} are checked when they are first used, not now")
        return None
    config, files = complete(read_config(teacher)), choose(teacher)
    inputs = {
        "version": _VERSION,
        "model": sha256_by_name(files.without([*files.weights, INDEX, RECORD])),
        "data": sorted(distinct),
    }
    checked = Checked(f"rows-{digest_of(inputs)}", told, sorted(distinct))
    if known is None or known.read_record(checked.name) is None:
        processor = load_processor(teacher)
        for split in distinct.values():
            check_rows(split, processor, config)
        say_once(f"{plan.data}: {counted} are checked")
    return checked
