"""How a tower is laid out: the vocabulary in which families describe towers, and which axes read.

A family says, for each tower, which modules write and read the residual stream, which form a block's attention and
its FFN. Names are relative to a block where they say so; a module's weight and, if the model has one, its bias follow
together, so layouts speak of modules, not of tensors.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from lmmpress.axes.slices import Shapes, group_name

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


def separate(
    query: str, key: str, value: str, output: str, heads: int, head_dim: int, foreign: tuple[str, ...] = ()
) -> Attention:
    """An attention with a module each for queries, keys and values, all of which have the same number of heads; scores
    are divided by the root of the head's width."""
    return Attention(
        query_key=((query, heads), (key, heads)),
        value=((value, heads),),
        output=output,
        heads=heads,
        head_dim=head_dim,
        scaled={query: heads},
        foreign=foreign,
    )


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

    def block(self, number: int) -> str:
        """What the names of a block's tensors begin with."""
        return f"{self.prefix}.{number}."

    def ffns_in(self, shapes: Shapes) -> Iterator[tuple[int, int | str, str, Ffn]]:
        """The FFNs that the model's blocks have: the block's number, the FFN's own where a block may have several, what
        its modules' names begin with, and what it is."""
        for number in range(self.depth):
            for index, network in enumerate(self.ffns):
                if f"{self.block(number)}{network.narrow}.weight" in shapes:
                    yield number, index if len(self.ffns) > 1 else "", self.block(number), network

    def attentions_in(self, shapes: Shapes) -> Iterator[tuple[int, int | str, str, Attention]]:
        """The attentions that the model's blocks have, as `ffns_in` gives FFNs."""
        for number in range(self.depth):
            for index, head in enumerate(self.attentions):
                if f"{self.block(number)}{head.output}.weight" in shapes:
                    yield number, index if len(self.attentions) > 1 else "", self.block(number), head


@dataclass(frozen=True)
class Stack:
    """Blocks in a row, whose tensors are `<prefix>.<number>.<rest>`. `group` names the group of its blocks, `within`
    what the names of groups inside of block n begin with: `<within>.<n>`, after the axis."""

    prefix: str
    depth: int
    group: str
    within: str = ""

    def number(self, tensor: str) -> int | None:
        """The number of the block that a tensor belongs to; None for tensors outside of the stack."""
        if not tensor.startswith(f"{self.prefix}."):
            return None
        return int(tensor[len(self.prefix) + 1 :].split(".", 1)[0])

    def renumbered(self, tensor: str, number: int) -> str:
        """The same tensor's name in another block."""
        rest = tensor[len(self.prefix) + 1 :].split(".", 1)[1]
        return f"{self.prefix}.{number}.{rest}"


@dataclass(frozen=True)
class TowerLayout:
    """What a family says of a tower.

    `writers` and `readers` are modules outside of the blocks whose outputs are, or inputs come from, the residual
    stream; `rows` are tensors that hold stream vectors along their last dimension (embeddings, query tokens), with the
    power that they are rescaled by. `hidden` are two-layer networks outside of the blocks whose hidden width the config
    ties to the stream's. `rms` tells that the norms divide by a mean square, which a cut changes by a known factor;
    `norm_shift` is what they add to their weight; `post_norm` that blocks normalise the stream itself; `output_power`
    is how the model's own scaling of what the last final norm gives changes with the width. `stream_unit` is what the
    config wants the stream's width to be a multiple of; axes that cannot be cut at all are in `inexpressible` by their
    names, with the reason.
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
    inexpressible: dict[str, str] = field(default_factory=dict)
    stream_unit: int = 1

    def block_stacks(self) -> tuple[Stack, ...]:
        """Its stacks as blocks in a row. The group of a stack's blocks belongs to the axis `block`."""
        return tuple(
            Stack(one.prefix, one.depth, group_name(self.name, "block", one.name), one.name) for one in self.stacks
        )
