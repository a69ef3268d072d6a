"""A tower's layout: the classes with which families describe towers to the axes.

A family declares, for each tower, which modules write and read the residual stream, and which form a block's attention
and FFN. Names inside of a block are relative to it. A module's weight and bias are always cut together, so layouts name
modules, not tensors.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from lmmpress.axes.slices import Shapes, group_name

Rotary = Literal["none", "halves", "pairs"]


@dataclass(frozen=True)
class Attention:
    """One attention of a block. A projection is (module, how many heads its rows hold).

    A module in which query, key and value are fused is named in `query_key` only. `scaled` are the modules that are
    multiplied when the head width shrinks (the query, because scores are divided by the root of the width), each with
    the number of its query heads, which come first. `norms` are norms over a head's width, each with the power of its
    rescaling. `foreign` are modules that read another tower. With rotary embeddings, only the first `turning` planes of
    a head are rotated, or all.
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
    """An attention with separate modules for queries, keys and values, which have the same number of heads; scores are
    divided by the root of the head's width."""
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
    """One feed-forward network of a block: the modules that widen (one, or gate and up; `fused` is how many of them
    share one tensor), and the one that narrows."""

    widen: tuple[str, ...]
    narrow: str
    width: int
    fused: int = 1


@dataclass(frozen=True)
class Blocks:
    """One stack of a tower: the `prefix` of its block tensors, and the modules of a block. A tower's only stack needs
    no name."""

    prefix: str
    depth: int
    attentions: tuple[Attention, ...]
    ffns: tuple[Ffn, ...]
    norms: tuple[str, ...]
    final_norm: str | None = None
    name: str = ""

    def block(self, number: int) -> str:
        """The prefix of the names of a block's tensors."""
        return f"{self.prefix}.{number}."

    def ffns_in(self, shapes: Shapes) -> Iterator[tuple[int, int | str, str, Ffn]]:
        """The FFNs of the model's blocks: the block's number, the FFN's own number if a block may have several, the
        prefix of its modules' names, and the FFN."""
        for number in range(self.depth):
            for index, network in enumerate(self.ffns):
                if f"{self.block(number)}{network.narrow}.weight" in shapes:
                    yield number, index if len(self.ffns) > 1 else "", self.block(number), network

    def attentions_in(self, shapes: Shapes) -> Iterator[tuple[int, int | str, str, Attention]]:
        """The attentions of the model's blocks, in the form of `ffns_in`."""
        for number in range(self.depth):
            for index, head in enumerate(self.attentions):
                if f"{self.block(number)}{head.output}.weight" in shapes:
                    yield number, index if len(self.attentions) > 1 else "", self.block(number), head


@dataclass(frozen=True)
class Stack:
    """Blocks in a row, whose tensors are `<prefix>.<number>.<rest>`. `group` is the name of the group of its blocks.
    The names of groups inside of block n begin, after the axis, with `<within>.<n>`."""

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
    """A family's description of a tower.

    `writers` and `readers` are modules outside of the blocks that write to, or read from, the residual stream. `rows`
    are tensors that hold stream vectors along their last dimension (embeddings, query tokens), each with the power of
    its rescaling. `hidden` are two-layer networks outside of the blocks whose hidden width the config ties to the
    stream's. `rms` is true if the norms divide by the root of a mean square, which a cut changes by a known factor.
    `norm_shift` is what norms add to their weight. `post_norm` is true if blocks normalise the stream itself.
    `output_power` is the further power of the last final norm's rescaling, for models that scale its output by a factor
    that depends on the width. The width of the stream must be a multiple of `stream_unit`. `inexpressible` maps the
    name of an axis that cannot be cut at all to the reason.
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
