"""One cut of one checkpoint, without a run."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lmmpress.axes import axis_named
from lmmpress.axes.cut import Cut
from lmmpress.data import read_split, usual_splits
from lmmpress.errors import UserError
from lmmpress.files.digest import digest_checkpoint
from lmmpress.lmm.anatomy import Anatomy
from lmmpress.lmm.batches import Batches, grouped
from lmmpress.lmm.checkpoint import (
    apply_cuts,
    load_model,
    read_checkpoint,
)
from lmmpress.lmm.compression_record import cuts_of, parse_record, read_record
from lmmpress.lmm.examples import encode
from lmmpress.lmm.forward import answer_logits
from lmmpress.lmm.processor import load_processor
from lmmpress.lmm.verify import verify_cut
from lmmpress.lmm.weights import check_finite
from lmmpress.printing.numbers import in_short
from lmmpress.printing.sheet import Part, Shown
from lmmpress.progress import say_once
from lmmpress.pruning.choose import check_removed, choose
from lmmpress.pruning.importance import Scores, loss_of, other_axes, score
from lmmpress.settings.importance import Importance


@dataclass(frozen=True, repr=False)
class Pruned(Shown):
    """The directory of a cut checkpoint, its cuts, and the number of parameters before and after."""

    checkpoint: Path
    cuts: tuple[Cut, ...]
    parameters_before: int
    parameters: int

    def as_dict(self) -> dict[str, Any]:
        """What `lmmpress prune --json` prints."""
        cuts = [cut.as_json() for cut in self.cuts]
        return {"checkpoint": str(self.checkpoint), "cut": cuts[-1], "cuts": cuts, "parameters": self.parameters}

    def __repr__(self) -> str:
        what = ", ".join(f"{cut.axis} of {cut.tower} -{cut.removed}" for cut in self.cuts[:4])
        more = f" and {len(self.cuts) - 4} more" if len(self.cuts) > 4 else ""
        return f"<{self.shown()[0]}: {what}{more}>"

    def shown(self) -> tuple[Part, ...]:
        """The checkpoint's directory, and its size before and after."""
        return (f"{self.checkpoint}: {in_short(self.parameters_before)} -> {in_short(self.parameters)} parameters",)


def prune_checkpoint(
    source: Path, target: Path, tower: str, axis: str, removed: int, data: Path | None, split: str, settings: Importance
) -> Pruned:
    """Cut `source` along one axis into the new directory `target`, scored on a split of the data.

    Raises UserError if the cut is not legal, the target exists, or data is needed and not given.
    """
    anatomy = read_checkpoint(source)
    check_removed(anatomy.axis(tower, axis), tower, axis, removed)
    if target.exists():
        raise UserError(f"{target} exists; name a new directory")
    check_finite(source)
    scores = None
    if axis_named(axis).needs_scores:
        if data is None:
            raise UserError(f"a cut along {axis} is scored on data; give --data")
        scores = _scores(source, anatomy, data, split, settings, other_axes([axis]))
    cut = choose(anatomy, tower, axis, removed, scores)
    return _write(source, anatomy, [cut], target)


def prune_like(source: Path, target: Path, record: Path) -> Pruned:
    """Apply all cuts of a COMPRESSION.json at once to its teacher.

    Raises UserError if the file is no COMPRESSION.json, if `source` is another model, and if the target exists.
    """
    if target.exists():
        raise UserError(f"{target} exists; name a new directory")
    if not record.is_file():
        raise UserError(f"{record}: there is no such file")
    content = parse_record(record, str(record))
    teacher = content.get("teacher")
    if teacher is None:
        raise UserError(f"{record} is no COMPRESSION.json that names a teacher and its cuts")
    cuts = cuts_of(content)
    if not cuts:
        raise UserError(f"{record} lists no cuts")
    if (digest := digest_checkpoint(source)) != teacher:
        raise UserError(f"the cuts of {record} were made for the checkpoint {teacher[:12]}, {source} is {digest[:12]}")
    anatomy = read_checkpoint(source)
    check_finite(source)
    return _write(source, anatomy, cuts, target)


def _write(source: Path, anatomy: Anatomy, cuts: list[Cut], target: Path) -> Pruned:
    """Write the cut checkpoint, whole or not at all."""
    digest = digest_checkpoint(source)
    known = read_record(source) or {"format": 1, "teacher": digest, "history": []}
    entries = [{"pruned_from": digest, "cut": cut.as_json()} for cut in cuts]
    aside = target.with_name(f".{target.name}.new")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        apply_cuts(source, anatomy, cuts, aside, known | {"history": [*known["history"], *entries]})
        after = verify_cut(source, anatomy, cuts, aside)
        aside.rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return Pruned(target, tuple(cuts), anatomy.parameters, after.parameters)


def _scores(source: Path, anatomy: Anatomy, data: Path, split: str, settings: Importance, others: list[str]) -> Scores:
    name = usual_splits(data).get(split, split)
    if name != split:
        say_once(f"{data}: the data has the usual splits: {name} scores")
    examples = encode(read_split(data, name, settings.rows), load_processor(source), anatomy.config)
    model, generator = load_model(source), torch.Generator().manual_seed(0)
    return score(
        model,
        anatomy,
        Batches(examples, grouped(examples, settings.batch_size)),
        len(examples.rows),
        loss_of(settings, generator, lambda batch: answer_logits(model, batch, anatomy.projector)),
        settings,
        generator,
        others,
    ).scores
