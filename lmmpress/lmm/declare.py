"""From a family's declarations to an anatomy: the vocabulary that family files are written in.

A family says, for each tower, which modules write and read the residual stream, which form a block's attention and
its FFN. Names are relative to a block where they say so; a module's weight and, if the model has one, its bias follow
together, so declarations speak of modules, not of tensors.
"""

from dataclasses import dataclass, field
from itertools import chain
from typing import Literal

from lmmpress.lmm.anatomy import AxisAnatomy, Exactness, Group, Shapes, Slice, Stack, Tower
from lmmpress.plan import Axis

Rotary = Literal["none", "halves", "pairs"]


@dataclass(frozen=True)
class Attention:
    """One attention of a block. A projection is (module, how many heads its rows hold).

    Fused modules stand in both `query_key` and `value` with no heads left to part them: name them in `query_key`
    alone. `scaled` are the modules multiplied when the head width shrinks (the query, since scores are divided by the
    root of the width), each with the number of its heads, the first ones, that are queries. `norms` are norms over a
    head's width, with the power that they are rescaled by. `foreign` are modules that read another tower. With rotary
    embeddings, only the first `turning` planes of a head turn, or all.
    """

    query_key: tuple[tuple[str, int], ...]
    value: tuple[tuple[str, int], ...]
    output: str
    heads: int
    head_dim: int
    scaled: dict[str, int] = field(default_factory=dict)
    norms: dict[str, float] = field(default_factory=dict)
    foreign: tuple[str, ...] = ()
    rotary: Rotary = "none"
    turning: int | None = None


@dataclass(frozen=True)
class Ffn:
    """One feed-forward network of a block: modules that widen (one, or gate and up; `fused` counts those in one
    tensor), and the one that narrows."""

    widen: tuple[str, ...]
    narrow: str
    width: int
    fused: int = 1


@dataclass(frozen=True)
class Blocks:
    """One stack of a tower: `prefix` of its block tensors, and what a block consists of. A tower's only stack needs no
    name."""

    prefix: str
    depth: int
    attentions: tuple[Attention, ...]
    ffns: tuple[Ffn, ...]
    norms: tuple[str, ...]
    final_norm: str | None = None
    name: str = ""


@dataclass(frozen=True)
class TowerPlan:
    """What a family says of a tower.

    `writers` and `readers` are modules outside of the blocks whose outputs are, or inputs come from, the residual
    stream; `rows` are tensors that hold stream vectors along their last dimension (embeddings, query tokens), with the
    power that they are rescaled by. `hidden` are two-layer networks outside of the blocks whose hidden width the config
    ties to the stream's. `rms` tells that the norms divide by a mean square, which a cut changes by a known factor;
    `norm_shift` is what they add to their weight; `post_norm` that blocks normalise the stream itself; `output_power`
    is how the model's own scaling of what the last final norm gives changes with the width. `stream_unit` is what the
    config wants the stream's width to be a multiple of; axes that cannot be cut at all are in `inexpressible`, with
    the reason.
    """

    name: str
    width: int
    stacks: tuple[Blocks, ...]
    rms: bool
    writers: tuple[str, ...] = ()
    readers: tuple[str, ...] = ()
    outer_norms: tuple[str, ...] = ()
    rows: dict[str, float] = field(default_factory=dict)
    hidden: tuple[Ffn, ...] = ()
    norm_shift: float = 0.0
    post_norm: bool = False
    output_power: float = 0.0
    inexpressible: dict[Axis, str] = field(default_factory=dict)
    stream_unit: int = 1


def build_tower(plan: TowerPlan, shapes: Shapes) -> Tower:
    """Turn declarations into groups and slices, leaving out modules that this model's blocks do not have."""
    ffn, attention, depth = [], [], []
    planes: list[Slice] = []
    stacks = []
    stream = list(_outer_stream(plan, shapes))
    for blocks in plan.stacks:
        stack = Stack(blocks.prefix, blocks.depth, _name(plan.name, "block", blocks.name), blocks.name)
        stacks.append(stack)
        depth.append(Group(stack.group, blocks.depth, tuple(_whole_blocks(stack, shapes))))
        for number in range(blocks.depth):
            block = f"{blocks.prefix}.{number}."
            for index, network in enumerate(blocks.ffns):
                if f"{block}{network.narrow}.weight" in shapes:
                    name = _name(plan.name, "ffn", blocks.name, number, index if len(blocks.ffns) > 1 else "")
                    ffn.append(Group(name, network.width, tuple(_ffn(network, block, shapes))))
            for index, head in enumerate(blocks.attentions):
                if f"{block}{head.output}.weight" not in shapes:
                    continue
                turns = head.rotary != "none"
                query_key = _query_key(head, block, shapes)
                if turns:
                    planes += query_key
                pieces = ([] if turns else query_key) + _value(head, block, shapes)
                name = _name(plan.name, "attention", blocks.name, number, index if len(blocks.attentions) > 1 else "")
                attention.append(Group(name, head.head_dim, tuple(pieces), grain=2 if turns else 1))
            stream += _block_stream(plan, blocks, block, shapes)
    first = plan.stacks[0].attentions[0]
    if planes:
        turning = first.turning if first.turning is not None else first.head_dim // 2
        name = f"{plan.name}.attention.planes"
        attention.insert(0, Group(name, first.head_dim // 2, tuple(planes), anchored=turning))
    io = [Group(f"{plan.name}.io", plan.width, tuple(stream), grain=plan.stream_unit)]
    for index, network in enumerate(plan.hidden):
        slices = tuple(_ffn(network, "", shapes))
        io.append(Group(f"{plan.name}.io.hidden.{index}", plan.width, slices, grain=plan.stream_unit))
    rescaled: Exactness = "exact"
    if any(piece.power for group in attention for piece in group.slices):
        rescaled = "exact after rescale"
    barred = plan.inexpressible
    axes = {
        Axis.block: AxisAnatomy(
            tuple(depth),
            min(blocks.depth for blocks in plan.stacks),
            silenced=() if plan.post_norm else tuple(_block_outputs(plan, shapes)),
        ),
        Axis.ffn: AxisAnatomy(tuple(ffn), plan.stacks[0].ffns[0].width, inexpressible=barred.get(Axis.ffn)),
        Axis.attention: AxisAnatomy(
            tuple(attention),
            first.heads * first.head_dim,
            unit=first.heads * (2 if planes else 1),
            exactness=rescaled,
            inexpressible=barred.get(Axis.attention),
        ),
        Axis.io: AxisAnatomy(
            tuple(io),
            plan.width,
            unit=plan.stream_unit,
            exactness="exact after rescale" if plan.rms else "approximate",
            inexpressible=barred.get(Axis.io),
        ),
    }
    final_norms = tuple(blocks.final_norm for blocks in plan.stacks if blocks.final_norm)
    return Tower(plan.name, tuple(stacks), axes, final_norms)


def _block_outputs(plan: TowerPlan, shapes: Shapes) -> list[str]:
    """The tensors that write into the residual stream from within blocks."""
    modules = [
        f"{blocks.prefix}.{number}.{module}"
        for blocks in plan.stacks
        for number in range(blocks.depth)
        for module in (*(head.output for head in blocks.attentions), *(network.narrow for network in blocks.ffns))
    ]
    return [name for module in modules for name in (f"{module}.weight", f"{module}.bias") if name in shapes]


def _name(*parts: object) -> str:
    """A group's name: the parts that there are, joined by dots."""
    return ".".join(str(part) for part in parts if part != "")


def _whole_blocks(stack: Stack, shapes: Shapes) -> list[Slice]:
    """Every tensor of every block, owned by the block it is in."""
    numbers = {tensor: stack.number(tensor) for tensor in shapes}
    return [
        Slice(tensor, 0, (1, 1, shapes[tensor][0]), counted=len(shapes[tensor]) > 1, offset=number)
        for tensor, number in numbers.items()
        if number is not None
    ]


def _out(
    module: str,
    view: tuple[int, int, int],
    shapes: Shapes,
    counted: bool = True,
    power: float = 0.0,
    scaled: int | None = None,
    shift: float = 0.0,
) -> list[Slice]:
    """A module's outputs: the rows of its weight, and its bias, which Eq. 2-4 do not count and nothing shifts."""
    pieces = []
    if f"{module}.weight" in shapes:
        pieces.append(Slice(f"{module}.weight", 0, view, counted, power, scaled=scaled, shift=shift))
    if f"{module}.bias" in shapes:
        pieces.append(Slice(f"{module}.bias", 0, view, False, power, scaled=scaled))
    return pieces


def _in(module: str, view: tuple[int, int, int], counted: bool = True) -> list[Slice]:
    """A module's inputs: the columns of its weight."""
    return [Slice(f"{module}.weight", 1, view, counted)]


def _ffn(network: Ffn, block: str, shapes: Shapes) -> list[Slice]:
    """Eq. 2: what hidden dimension n of the FFN owns."""
    widened = [_out(block + name, (network.fused, network.width, 1), shapes) for name in network.widen]
    return [*chain(*widened), *_in(block + network.narrow, (1, network.width, 1))]


def _query_key(head: Attention, block: str, shapes: Shapes) -> list[Slice]:
    """Eq. 3, queries and keys: dimension n of every head, or rotary plane n, whose two dimensions stay together."""

    def view(heads: int) -> tuple[int, int, int]:
        return {
            "none": (heads, head.head_dim, 1),
            "halves": (heads * 2, head.head_dim // 2, 1),
            "pairs": (heads, head.head_dim // 2, 2),
        }[head.rotary]

    pieces = []
    for name, heads in head.query_key:
        queries = head.scaled.get(name)
        part = None if queries in (None, heads) else queries * (2 if head.rotary == "halves" else 1)
        pieces += _out(block + name, view(heads), shapes, power=-0.5 if queries else 0.0, scaled=part)
    for name, power in head.norms.items():
        pieces += _out(block + name, view(1), shapes, counted=False, power=power)
    return pieces


def _value(head: Attention, block: str, shapes: Shapes) -> list[Slice]:
    """Eq. 3, values and outputs: dimension n of every head."""
    values = [_out(block + name, (heads, head.head_dim, 1), shapes) for name, heads in head.value]
    return [*chain(*values), *_in(block + head.output, (head.heads, head.head_dim, 1))]


def _block_stream(plan: TowerPlan, blocks: Blocks, block: str, shapes: Shapes) -> list[Slice]:
    """Eq. 4: what residual dimension n owns in a block; norms go with it without being counted."""
    view = (1, plan.width, 1)
    pieces: list[Slice] = []
    for head in blocks.attentions:
        if f"{block}{head.output}.weight" not in shapes:
            continue
        readers = dict.fromkeys(name for name, _ in (*head.query_key, *head.value) if name not in head.foreign)
        pieces += chain(*(_in(block + name, view) for name in readers))
        pieces += _out(block + head.output, view, shapes)
    for network in blocks.ffns:
        if f"{block}{network.narrow}.weight" in shapes:
            pieces += chain(*(_in(block + name, view) for name in network.widen))
            pieces += _out(block + network.narrow, view, shapes)
    for norm in blocks.norms:
        pieces += _norm(plan, block + norm, shapes)
    return pieces


def _outer_stream(plan: TowerPlan, shapes: Shapes) -> list[Slice]:
    """What residual dimension n owns outside of the blocks: embeddings, outer norms, projections, heads."""
    view = (1, plan.width, 1)
    pieces = [
        Slice(name, len(shapes[name]) - 1, view, False, power) for name, power in plan.rows.items() if name in shapes
    ]
    for norm in plan.outer_norms:
        pieces += _norm(plan, norm, shapes)
    finals = [blocks.final_norm for blocks in plan.stacks if blocks.final_norm]
    for norm in finals:
        pieces += _norm(plan, norm, shapes, plan.output_power if norm == finals[-1] else 0.0)
    for module in plan.writers:
        pieces += _out(module, view, shapes, counted=False)
    for module in plan.readers:
        if f"{module}.weight" in shapes:
            repeats = shapes[f"{module}.weight"][1] // plan.width  # a reader may be given several states side by side
            pieces += _in(module, (repeats, plan.width, 1), counted=False)
    return pieces


def _norm(plan: TowerPlan, norm: str, shapes: Shapes, more: float = 0.0) -> list[Slice]:
    power = (0.5 if plan.rms else 0.0) + more
    return _out(norm, (1, plan.width, 1), shapes, counted=False, power=power, shift=plan.norm_shift)
