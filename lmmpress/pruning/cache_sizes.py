"""How large the caches of a run get, from the sizes of the model alone: with each token that they keep, and as a whole
where rows are known."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from lmmpress.lmm.anatomy import Anatomy
from lmmpress.plan import Plan
from lmmpress.printing.numbers import in_bytes, in_time
from lmmpress.pruning.memory import widths_of
from lmmpress.pruning.row_shapes import AllRows
from lmmpress.pruning.sizes import frozen_side
from lmmpress.result import Role

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


FEATURES, STATES = "visual features", "teacher's states"
_ORDER: tuple[tuple[Role, str], ...] = (
    ("gate", FEATURES),
    ("score", FEATURES),
    ("distill", FEATURES),
    ("distill", STATES),
    ("test", FEATURES),
)
"""The caches of a run, as it makes them."""
_INSTEAD = {FEATURES: "runs the image towers over all its pictures", STATES: "runs the teacher over all its rows"}


@dataclass(frozen=True)
class Cache:
    """A cache of a role's rows: what it keeps, its bytes, and whether the budget has room for it."""

    what: str
    role: Role
    size: int
    fits: bool


def caches_of(plan: Plan, rows: AllRows, of_picture: int, of_token: int, width: int) -> tuple[Cache, ...]:
    """The caches of a run that computes with numbers of so many bytes, where features of a picture have `of_picture`
    bytes (0 where they are not kept), and states of a token of an answer `of_token`."""
    cached = plan.distillation.cached
    if cached is None:
        return ()
    share = _WIDTHS.get(cached.dtype or "", width) / width
    return tuple(_within(cached.disk, _sizes(rows, of_picture, of_token, share)))


def _sizes(rows: AllRows, of_picture: int, of_token: int, share: float) -> Iterator[tuple[Role, str, int]]:
    for role, what in _ORDER:
        own = rows[role]
        numbers = own.pictures * of_picture if what == FEATURES else own.rows * own.answers * of_token
        if numbers:
            yield role, what, round(share * numbers)


def _within(budget: int | None, sizes: Iterable[tuple[Role, str, int]]) -> Iterator[Cache]:
    """Each as long as there is room for it beside those before it, as a run decides."""
    used = 0
    for role, what, size in sizes:
        fits = budget is None or used + size <= budget
        used += size if fits else 0
        yield Cache(what, role, size, fits)


def said_of(caches: tuple[Cache, ...], plan: Plan, seconds: float = 0.0) -> str:
    """A line about all caches: how large they are, and what happens where they do not fit, which takes so many seconds
    more."""
    cached = plan.distillation.cached
    if cached is None or not caches:
        return ""
    sizes = {what: sum(one.size for one in caches if one.what == what) for what in (FEATURES, STATES)}
    line = "caches: " + " and ".join(f"{in_bytes(size)} of {what}" for what, size in sizes.items() if size)
    if cached.memory != "auto" and cached.memory < sum(one.size for one in caches if one.fits):
        line += f", of which {in_bytes(cached.memory)} stay in memory and the rest is read from the disk every time"
    left = [one for one in caches if not one.fits]
    if not left or cached.disk is None:
        return line
    named = " and ".join(f"the {one.what} of {one.role} ({in_bytes(one.size)})" for one in left)
    instead = " and ".join(_INSTEAD[what] for what in sizes if any(one.what == what for one in left))
    return (
        f"{line}; distillation.caches.disk is {in_bytes(cached.disk)}, so {named} are not kept, and every step "
        f"{instead}: {in_time(seconds)} more in all"
    )
