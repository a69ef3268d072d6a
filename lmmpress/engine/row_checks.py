"""Checks every row of every split before the first step, so that no run fails late on a row of its test split."""

from dataclasses import dataclass
from pathlib import Path

from lmmpress.data import Split
from lmmpress.data.images import distinct_images
from lmmpress.data.leaks import check_leak
from lmmpress.engine.misfits import naming_the_way_out
from lmmpress.engine.run_splits import split_names, split_of, turns_of
from lmmpress.files.allow_list import INDEX, RECORD, choose
from lmmpress.files.digest import sha256_by_name
from lmmpress.lmm.examples import check_rows
from lmmpress.lmm.processor import load_processor
from lmmpress.lmm.read_anatomy import complete, read_config
from lmmpress.lmm.row_reading import reading_of
from lmmpress.plan import Plan, Turns, digest_of
from lmmpress.progress import say_once
from lmmpress.result import ROLES, Role
from lmmpress.store import Store
from lmmpress.store.records import OF, Subjects

_VERSION = 1


@dataclass(frozen=True)
class Checked:
    """The result of a successful check. `name` is the name of its record, computed from the rows and the model;
    `counts` are the numbers of rows and images; `data` are the digests of the splits."""

    name: str
    counts: dict[str, int]
    data: list[str]

    def note(self, store: Store) -> None:
        """Write the record into a store, so that the rows are not checked again."""
        if store.read_record(self.name) is None:
            of = Subjects(checkpoints=[], data=self.data)
            store.write_record(self.name, {**self.counts, OF: of.model_dump()})


def read_splits(plan: Plan) -> dict[Role, Split]:
    """The rows of every role, after checking that no image is used both for training and for measuring.

    Reports how the usual splits of a data set are used, and how many text-only rows are in two splits. Raises UserError
    for malformed rows, and for an image that is used for both.
    """
    names = split_names(plan)
    if any(names[role] != getattr(plan.splits, role) for role in ROLES):
        say_once(
            f"{plan.data}: the plan names no splits, and the data has the usual ones: {names['score']} is used to "
            f"score, {names['distill']} to distil, {names['gate']} for the gate, {names['test']} to test"
        )
    splits = {role: split_of(plan, role) for role in ROLES}
    measuring: tuple[Role, ...] = ("gate", "test")
    learning: tuple[Role, ...] = ("score", "distill")
    for role in measuring:
        for other in learning:
            # a plan that names the same split for both does so on purpose
            if names[role] != names[other] and (words := check_leak(splits[other], splits[role])):
                say_once(words)
    return splits


def check_all_rows(plan: Plan, teacher: Path, known: Store | None = None) -> Checked | None:
    """Check that every row of every role fits the model: decode the images, count the tokens of prompts and answers.

    If the store `known` has a record of the same check, the check is not repeated. With `data_checks: lazy` the rows
    are only counted. Raises UserError for the first fault.
    """
    splits = read_splits(plan)
    distinct = {split.digest: split for split in splits.values()}
    counts = {
        "rows": sum(len(split.rows) for split in distinct.values()),
        "images": distinct_images(split.images for split in distinct.values()),
    }
    counted = f"{counts['rows']:,} rows and {counts['images']:,} images"
    if plan.data_checks == "lazy":
        say_once(f"{plan.data}: data_checks is lazy: {counted} are checked when they are first used, not now")
        return None
    config, files = complete(read_config(teacher)), choose(teacher)
    inputs = {
        "version": _VERSION,
        "model": sha256_by_name(files.without([*files.weights, INDEX, RECORD])),
        "data": sorted(distinct),
    }
    taught = {split.digest for role, split in splits.items() if turns_of(plan, role) == "all"}
    turns: dict[str, Turns] = {digest: "all" if digest in taught else "last" for digest in distinct}
    readings = {digest: reading_of(split, turns[digest], plan.template) for digest, split in distinct.items()}
    if any(readings.values()):  # else the name stays as in earlier versions
        inputs["readings"] = readings
    checked = Checked(f"rows-{digest_of(inputs)}", counts, sorted(distinct))
    if known is None or known.read_record(checked.name) is None:
        processor = load_processor(teacher)
        for split in distinct.values():
            with naming_the_way_out(plan):
                check_rows(split, processor, config, turns=turns[split.digest], template=plan.template)
        say_once(f"{plan.data}: {counted} are checked")
    return checked
