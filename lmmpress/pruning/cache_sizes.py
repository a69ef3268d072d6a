"""How large the caches of a run get with each token that they keep, from the sizes of the model alone."""

from lmmpress.lmm.anatomy import Anatomy
from lmmpress.plan import Plan
from lmmpress.printing.numbers import in_bytes
from lmmpress.pruning.memory import widths_of
from lmmpress.pruning.sizes import frozen_side

_WIDTHS = {"bfloat16": 2, "float32": 4}


def numbers_by_token(anatomy: Anatomy, plan: Plan) -> dict[str, int]:
    """How many numbers the caches hold of each token of an answer (the input of the teacher's head), and of each visual
    token of a picture (the input of the projector) where these are kept."""
    if plan.distillation.cached is None:
        return {}
    head = f"{anatomy.heads[0]}weight"
    found = {"token of an answer": anatomy.shapes[anatomy.ties.get(head, head)][1]}
    projector = anatomy.projector
    if projector and (frozen_side(plan, anatomy) or plan.distillation.image_side == "features"):
        shapes = (shape for name, shape in anatomy.shapes.items() if name.startswith(f"{projector.module}."))
        found["visual token of a picture"] = next(shape[1] for shape in shapes if len(shape) == 2)
    return found


def note_of(anatomy: Anatomy, plan: Plan) -> str:
    """A line about it; an empty one for a plan without caches."""
    cached = plan.distillation.cached
    if cached is None:
        return ""
    here, there = widths_of(plan) if cached.dtype is None else (_WIDTHS[cached.dtype],) * 2
    sizes = [f"{in_bytes(here * count)} for each {what}" for what, count in numbers_by_token(anatomy, plan).items()]
    return f"caches on the disk: {' and '.join(sizes)}" + ("" if here == there else "; half of that on a GPU")
