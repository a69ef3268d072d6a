"""From a family's declarations to an anatomy: the vocabulary that family files are written in.

A family says, for each tower, which modules write and read the residual stream, which form a block's attention and
its FFN. Names are relative to a block where they say so; a module's weight and, if the model has one, its bias follow
together, so declarations speak of modules, not of tensors.
"""

from dataclasses import dataclass
from itertools import chain
from typing import Literal

from lmmpress.lmm.anatomy import AxisAnatomy, Group, Shapes, Slice, Tower
from lmmpress.plan import Axis

Rotary = Literal["none", "halves", "pairs"]


@dataclass(frozen=True)
class Attention:
    """One attention of a block. A projection is (module, how many heads its rows hold).

    Fused modules stand in both `query_key` and `value` with no heads left to part them: name them in `query_key`
    alone. `scaled` are the modules multiplied when the head width shrinks (the query, since scores are divided by the
    root of the width). `reads_stream` is false for keys and values that read another tower.
    """

    query_key: tuple[tuple[str, int], ...]
    value: tuple[tuple[str, int], ...]
    output: str
    heads: int
    head_dim: int
    scaled: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    rotary: Rotary = "none"


@dataclass(frozen=True)
class Ffn:
    """One feed-forward network of a block: modules that widen (one, or gate and up; `fused` counts those in one
    tensor), and the one that narrows."""

    widen: tuple[str, ...]
    narrow: str
    width: int
    fused: int = 1


@dataclass(frozen=True)
class TowerPlan:
    """What a family says of a tower.

    `writers` and `readers` are modules outside of the blocks whose outputs are, or inputs come from, the residual
    stream; `rows` are tensors that hold stream vectors along their last dimension (embeddings, query tokens).
    `rms` tells that the norms divide by a mean square, which a cut changes by a known factor. `stream_unit` is what the
    config wants the stream's width to be a multiple of; axes that the config cannot express are in `inexpressible`.
    """

    name: str
    blocks: str
    depth: int
    width: int
    attentions: tuple[Attention, ...]
    ffns: tuple[Ffn, ...]
    norms: tuple[str, ...]
    final_norm: str | None
    rms: bool
    writers: tuple[str, ...] = ()
    readers: tuple[str, ...] = ()
    outer_norms: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    config_key: str | None = None
    inexpressible: dict[Axis, str] | None = None
    stream_unit: int = 1


def build_tower(plan: TowerPlan, shapes: Shapes) -> Tower:
    """Turn declarations into groups and slices, leaving out modules that this model's blocks do not have."""
    ffn, attention = [], []
    planes: list[Slice] = []
    stream: list[Slice] = list(_outer_stream(plan, shapes))
    for number in range(plan.depth):
        block = f"{plan.blocks}.{number}."
        for index, network in enumerate(plan.ffns):
            if f"{block}{network.narrow}.weight" not in shapes:
                continue
            suffix = f".{index}" if len(plan.ffns) > 1 else ""
            ffn.append(Group(f"{plan.name}.ffn.{number}{suffix}", network.width, tuple(_ffn(network, block, shapes))))
        for index, head in enumerate(plan.attentions):
            if f"{block}{head.output}.weight" not in shapes:
                continue
            suffix = f".{index}" if len(plan.attentions) > 1 else ""
            name = f"{plan.name}.attention.{number}{suffix}"
            rotary = head.rotary != "none"
            if rotary:
                planes += _query_key(head, block, shapes)
            pieces = [] if rotary else _query_key(head, block, shapes)
            pieces += _value(head, block, shapes)
            attention.append(Group(name, head.head_dim, tuple(pieces), grain=2 if rotary else 1))
        stream += _block_stream(plan, block, shapes)
    first = plan.attentions[0]
    if planes:
        attention.insert(0, Group(f"{plan.name}.attention.planes", first.head_dim // 2, tuple(planes)))
    barred = plan.inexpressible or {}
    prefix = f"{plan.blocks}."
    whole = [
        Slice(tensor, 0, (1, 1, shape[0]), counted=len(shape) > 1, offset=int(tensor[len(prefix) :].split(".")[0]))
        for tensor, shape in shapes.items()
        if tensor.startswith(prefix)
    ]
    axes = {
        Axis.block: AxisAnatomy((Group(f"{plan.name}.block", plan.depth, tuple(whole)),), plan.depth),
        Axis.ffn: AxisAnatomy(tuple(ffn), plan.ffns[0].width, inexpressible=barred.get(Axis.ffn)),
        Axis.attention: AxisAnatomy(
            tuple(attention),
            first.heads * first.head_dim,
            unit=first.heads * (2 if planes else 1),
            inexpressible=barred.get(Axis.attention),
        ),
        Axis.io: AxisAnatomy(
            (Group(f"{plan.name}.io", plan.width, tuple(stream), grain=plan.stream_unit),),
            plan.width,
            unit=plan.stream_unit,
            inexpressible=barred.get(Axis.io),
        ),
    }
    return Tower(plan.name, plan.blocks, plan.depth, axes, plan.final_norm, plan.config_key)


def _out(
    module: str, view: tuple[int, int, int], shapes: Shapes, counted: bool = True, power: float = 0.0
) -> list[Slice]:
    """A module's outputs: the rows of its weight, and its bias, which Eq. 2-4 do not count."""
    pieces = [Slice(f"{module}.weight", 0, view, counted, power)]
    if f"{module}.bias" in shapes:
        pieces.append(Slice(f"{module}.bias", 0, view, False, power))
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
    pieces = []
    for name, heads in head.query_key:
        view = {
            "none": (heads, head.head_dim, 1),
            "halves": (heads * 2, head.head_dim // 2, 1),
            "pairs": (heads, head.head_dim // 2, 2),
        }[head.rotary]
        power = -0.5 if name in head.scaled else 0.0
        pieces += _out(block + name, view, shapes, power=power)
    return pieces


def _value(head: Attention, block: str, shapes: Shapes) -> list[Slice]:
    """Eq. 3, values and outputs: dimension n of every head."""
    values = [_out(block + name, (heads, head.head_dim, 1), shapes) for name, heads in head.value]
    return [*chain(*values), *_in(block + head.output, (head.heads, head.head_dim, 1))]


def _block_stream(plan: TowerPlan, block: str, shapes: Shapes) -> list[Slice]:
    """Eq. 4: what residual dimension n owns in a block; norms go with it without being counted."""
    view = (1, plan.width, 1)
    pieces: list[Slice] = []
    for head in plan.attentions:
        if f"{block}{head.output}.weight" not in shapes:
            continue
        readers = dict.fromkeys(name for name, _ in (*head.query_key, *head.value) if name not in head.foreign)
        pieces += chain(*(_in(block + name, view) for name in readers))
        pieces += _out(block + head.output, view, shapes)
    for network in plan.ffns:
        if f"{block}{network.narrow}.weight" in shapes:
            pieces += chain(*(_in(block + name, view) for name in network.widen))
            pieces += _out(block + network.narrow, view, shapes)
    for norm in plan.norms:
        if f"{block}{norm}.weight" in shapes:
            pieces += _out(block + norm, view, shapes, counted=False, power=0.5 if plan.rms else 0.0)
    return pieces


def _outer_stream(plan: TowerPlan, shapes: Shapes) -> list[Slice]:
    """What residual dimension n owns outside of the blocks: embeddings, outer norms, projections, heads."""
    view = (1, plan.width, 1)
    pieces = [Slice(name, len(shapes[name]) - 1, view, False) for name in plan.rows if name in shapes]
    norms = [*plan.outer_norms, *([plan.final_norm] if plan.final_norm else [])]
    for norm in norms:
        pieces += _out(norm, view, shapes, counted=False, power=0.5 if plan.rms else 0.0)
    for module in plan.writers:
        pieces += _out(module, view, shapes, counted=False)
    for module in plan.readers:
        if f"{module}.weight" in shapes:
            pieces += _in(module, view, counted=False)
    return pieces
