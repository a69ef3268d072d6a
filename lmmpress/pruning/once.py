"""One cut of one checkpoint, for those who want a cut and no run."""

import shutil
from pathlib import Path

import torch

from lmmpress.data import read_split
from lmmpress.errors import UserError
from lmmpress.importance import Scores, answer_loss, score
from lmmpress.lmm.anatomy import Anatomy
from lmmpress.lmm.checkpoint import apply_cut, digest_checkpoint, load_model, read_checkpoint
from lmmpress.lmm.cut import Cut
from lmmpress.lmm.examples import batches, encode, load_processor, make_batch
from lmmpress.lmm.forward import answer_logits
from lmmpress.plan import Axis, Importance
from lmmpress.pruning.choose import check_amount, choose


def prune_checkpoint(
    source: Path, target: Path, tower: str, axis: Axis, amount: int, data: Path | None, split: str, settings: Importance
) -> Cut:
    """Cut `source` along one axis into the new directory `target`, scored on a split of the data.

    Raises UserError where the cut is not legal, the target exists, or data is needed and not given.
    """
    anatomy = read_checkpoint(source)
    check_amount(anatomy.tower(tower).axes[axis], tower, axis, amount)
    if target.exists():
        raise UserError(f"{target} exists; name a new directory")
    scores = None
    if axis is not Axis.block:
        if data is None:
            raise UserError(f"a cut along {axis} is scored on data; give --data")
        scores = _scores(source, anatomy, data, split, settings)
    cut = choose(anatomy, tower, axis, amount, scores)
    digest = digest_checkpoint(source)
    entry = {"pruned_from": digest, "cut": cut.model_dump(mode="json")}
    aside = target.with_name(f".{target.name}.new")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        apply_cut(source, cut, aside, {"format": 1, "teacher": digest, "history": [entry]})
        aside.rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return cut


def _scores(source: Path, anatomy: Anatomy, data: Path, split: str, settings: Importance) -> Scores:
    model = load_model(source)
    examples = encode(read_split(data, split, settings.rows), load_processor(source))
    return score(
        model,
        anatomy,
        [make_batch(examples, chosen) for chosen in batches(examples, settings.batch_size)],
        lambda batch: answer_loss(answer_logits(model, batch, examples, anatomy.projector, None), batch),
        settings,
        torch.Generator().manual_seed(0),
    ).scores
