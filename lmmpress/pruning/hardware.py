"""What computes: cards by name, as their makers describe them, or this machine, measured for a moment."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from lmmpress.errors import UserError
from lmmpress.host.memory import available_memory
from lmmpress.lmm.anatomy import Anatomy
from lmmpress.lmm.shadow import Taken
from lmmpress.settings.faults import nearest
from lmmpress.settings.plain_yaml import read_document

PRODUCTS, TRAFFIC = 0.6, 0.75
"""The shares of what its maker says that are assumed of a card: of the FLOPs, within matrix products, and of the bytes
a second, within everything else."""
CALL = 5e-6
"""The seconds that are assumed for starting one operation on a card."""

_GIB = 1 << 30
_MOMENT = 0.1  # seconds of a measurement
_CARDS = Path(__file__).with_name("cards.yaml")


@dataclass(frozen=True)
class Hardware:
    """`count` cards, or one CPU, of so many bytes of `memory` each. `single` and `half` are the FLOPs a second of
    matrix products in float32 and bfloat16 (None without it), `traffic` the bytes a second of everything else, `call`
    the seconds that starting an operation takes. `peak` is the FLOPs a second that utilisation is a share of: the
    maker's, or those measured here. `how` says where the numbers are from."""

    name: str
    count: int
    memory: int
    single: float
    half: float | None
    traffic: float
    call: float
    peak: float
    how: str
    on_gpu: bool = True

    def seconds(self, taken: Taken, half: bool) -> float:
        """How long one card takes for a computation: its products, moving bytes, and starting operations add up."""
        rate = self.half if half and self.half else self.single
        return taken.flops / rate + taken.moved / self.traffic + taken.calls * self.call


def card_names() -> list[str]:
    """The cards that are known by name."""
    return list(_cards())


def hardware_for(text: str, anatomy: Anatomy) -> Hardware:
    """The hardware of a name, measured, where it is this machine, with products as wide as a model's widest tower."""
    return hardware_of(text, max(body.width for tower in anatomy.towers.values() if (body := tower.axes.get("io"))))


def hardware_of(text: str, width: int) -> Hardware:
    """The hardware of a name: a card, several of it (`h100-80gbx8`), `cpu`, or `auto`: this machine's GPUs, else its
    CPU. What is measured here are products of matrices of such a `width`. UserError for an unknown name."""
    if text == "auto":
        return _gpus_here(width) if torch.cuda.is_available() else _cpu_here(width)
    if text == "cpu":
        return _cpu_here(width)
    cards = _cards()
    found = re.fullmatch(r"(?P<name>.+?)(?:x(?P<count>[1-9]\d{0,3}))?", text)
    if found is None or found["name"] not in cards:
        raise UserError(
            f"unknown hardware {text!r}; {nearest(text, [*cards, 'cpu', 'auto'])} (several cards: h100-80gbx8)"
        )
    name, count = found["name"], int(found["count"] or 1)
    card = cards[name]
    half = card.get("bf16")
    return Hardware(
        name=name,
        count=count,
        memory=int(card["gib"] * _GIB),
        single=PRODUCTS * card["fp32"] * 1e12,
        half=None if half is None else PRODUCTS * half * 1e12,
        traffic=TRAFFIC * card["gbs"] * 1e9,
        call=CALL,
        peak=(half or card["fp32"]) * 1e12,
        how=f"assumed: products reach {PRODUCTS:.0%} of the card's FLOPs, the rest {TRAFFIC:.0%} of its bytes a second",
    )


def _cards() -> dict[str, dict[str, float]]:
    cards: dict[str, dict[str, float]] = read_document(_CARDS, "cards").value
    return cards


def _cpu_here(width: int) -> Hardware:
    memory = available_memory()
    single, traffic, call = _measured(torch.device("cpu"), torch.float32, width)
    half, _, _ = _measured(torch.device("cpu"), torch.bfloat16, width)
    how = (
        f"measured here, with {torch.get_num_threads()} threads: {single / 1e9:.3g} GFLOPs/s, {traffic / 1e9:.3g} GB/s"
    )
    return Hardware("cpu", 1, memory, single, half, traffic, call, single, how, on_gpu=False)


def _gpus_here(width: int) -> Hardware:
    about, device = torch.cuda.get_device_properties(0), torch.device("cuda")
    single, traffic, call = _measured(device, torch.float32, width)
    half = _measured(device, torch.bfloat16, width)[0] if torch.cuda.is_bf16_supported() else None
    peak = max(single, half or 0.0)
    how = f"measured here: {peak / 1e12:.3g} TFLOPs/s, {traffic / 1e9:.4g} GB/s"
    return Hardware(about.name, torch.cuda.device_count(), about.total_memory, single, half, traffic, call, peak, how)


def _measured(device: torch.device, dtype: torch.dtype, width: int) -> tuple[float, float, float]:
    """FLOPs a second of products of matrices of that width, bytes a second of a function of each number, and the
    seconds of a small operation."""
    on_gpu = device.type == "cuda"
    rows = 8192 if on_gpu else 512
    left, right = (torch.ones(size, width, device=device, dtype=dtype) for size in (rows, width))
    many = torch.ones(1 << (26 if on_gpu else 21), device=device)
    one = torch.ones(1, device=device)
    return (
        2 * rows * width * width * _rate(lambda: left @ right.T, device),
        8 * len(many) * _rate(lambda: torch.nn.functional.gelu(many), device),
        1 / _rate(lambda: one + one, device),
    )


def _rate(work: Callable[[], torch.Tensor], device: torch.device) -> float:
    """How often a second this device does some work."""

    def finished() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
            return time.perf_counter()
        # the threads of a CPU count together; what else runs here does not
        return time.process_time() / torch.get_num_threads()

    work()
    begun, done = finished(), 0
    while (spent := finished() - begun) < _MOMENT:
        for _ in range(10):
            work()
        done += 10
    return done / spent
