"""AdamW with averages of 8 bits, and with weights of bfloat16: they do what AdamW in float32 does, in less memory."""

import sys
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lmmpress.distillation import optimizers
from lmmpress.distillation.optimizers import check_installed, optimizer_of, pieces_of
from lmmpress.errors import UserError
from lmmpress.settings.economy import NO_ECONOMY, Economy

SHAPES = ((64, 96), (33, 129), (48,), (7,), (2, 3, 40, 40))
"""Of parameters: of whole blocks of 256, with a rest, too small for 8 bits, of more dimensions."""
EIGHT_BITS = Economy(optimizer="adamw8bit")
HALF = Economy(weights="bfloat16")
BOTH = Economy(optimizer="adamw8bit", weights="bfloat16")


def parameters(dtype: torch.dtype = torch.float32) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in SHAPES]


def trained(economy: Economy, updates: int = 40, rate: float = 1e-2) -> list[torch.nn.Parameter]:
    """Parameters that are drawn to 1, some numbers more than others, with a warm-up as in a training."""
    dtype = torch.bfloat16 if economy.weights == "bfloat16" else torch.float32
    weights = parameters(dtype)
    optimizer = optimizer_of(weights, rate, 0.01, economy)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: min(1.0, (done + 1) / 10))
    generator = torch.Generator().manual_seed(1)
    steep = [torch.rand(weight.shape, generator=generator) + 0.1 for weight in weights]
    for _ in range(updates):
        for part, weight in zip(steep, weights, strict=True):
            (part * (weight.float() - 1) ** 2).sum().backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        assert all(weight.grad is None for weight in weights)
    return weights


@pytest.mark.parametrize("economy", [EIGHT_BITS, HALF, BOTH], ids=str)
def test_weights_go_where_adamw_takes_them(economy: Economy) -> None:
    start, wanted, found = parameters(), trained(NO_ECONOMY), trained(economy)
    for before, exact, own in zip(start, wanted, found, strict=True):
        moved, apart = (exact - before).norm(), (own.float() - exact).norm()
        assert apart < 0.1 * moved, "a tenth of the way at most"


@pytest.mark.parametrize("economy", [HALF, BOTH], ids=str)
def test_updates_that_are_too_small_for_bfloat16_add_up(economy: Economy) -> None:
    """Near 1, bfloat16 has steps of 2^-7 and 2^-8. Rounded to the nearest, no update of 1e-4 would change anything."""
    weight = torch.nn.Parameter(torch.ones(4096, dtype=torch.bfloat16))
    optimizer = optimizer_of([weight], 1e-4, 0.0, economy)
    for _ in range(100):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    assert float(weight.float().mean()) == pytest.approx(1 - 100 * 1e-4, abs=1e-3)


def test_numbers_whose_gradients_end_do_not_run_away() -> None:
    """Beside a number with a large gradient, the mean square of one with a small gradient is rounded in 8 bits. Were it
    rounded to zero, its next update without a gradient would be its mean gradient over the epsilon: 10^3 rates here."""
    weight = torch.nn.Parameter(torch.zeros(4096))
    optimizer = optimizer_of([weight], 1e-3, 0.0, EIGHT_BITS)
    gradient = torch.full_like(weight, 1e-4)
    gradient[::256] = 1.0
    for number in range(20):
        weight.grad = gradient.clone() if number < 10 else torch.zeros_like(weight)
        optimizer.step()
    assert float(weight.abs().max()) < 20 * 1e-3


def bytes_of_states(economy: Economy, shape: tuple[int, ...], dtype: torch.dtype) -> float:
    """Bytes of a parameter's averages, each number's share."""
    weight = torch.nn.Parameter(torch.zeros(shape, dtype=dtype))
    optimizer = optimizer_of([weight], 1e-3, 0.0, economy)
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    held = 0
    for state in optimizer.state.values():
        for average in (state["exp_avg"], state["exp_avg_sq"]):
            parts = [average.codes, average.scale] if hasattr(average, "codes") else [average]
            held += sum(part.nbytes for part in parts)
    return held / weight.numel()


def test_averages_take_two_bytes_a_number_instead_of_eight() -> None:
    large, small = (256, 256), (48,)
    assert bytes_of_states(NO_ECONOMY, large, torch.float32) == 8
    assert bytes_of_states(EIGHT_BITS, large, torch.float32) == pytest.approx(2 + 8 / 256)
    assert bytes_of_states(BOTH, large, torch.bfloat16) == pytest.approx(2 + 8 / 256)
    for economy in (HALF, BOTH):
        assert bytes_of_states(economy, small, torch.bfloat16) == 8, "an average in bfloat16 would soon stand still"


def test_rounding_repeats_and_leaves_the_callers_random_numbers_alone() -> None:
    torch.manual_seed(3)
    once = trained(BOTH)
    after = torch.get_rng_state()
    torch.manual_seed(3)
    assert torch.equal(after, torch.get_rng_state())
    torch.manual_seed(4)
    assert all(map(torch.equal, once, trained(BOTH)))


@given(st.integers(1, 5000), st.integers(1, 8))
def test_pieces_are_all_numbers_of_a_parameter_once(count: int, blocks: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optimizers, "PIECE", 256 * blocks)
        pieces = pieces_of(torch.arange(count))
    assert torch.cat(pieces).tolist() == list(range(count))
    assert all(len(piece) <= 256 * blocks for piece in pieces)
    assert all(len(piece) % 256 == 0 for piece in pieces[:-1])


def test_a_parameter_without_a_gradient_stays() -> None:
    weights = parameters()
    optimizer = optimizer_of(weights, 1e-2, 0.1, EIGHT_BITS)
    weights[0].grad = torch.ones_like(weights[0])
    optimizer.step()
    assert all(map(torch.equal, weights[1:], parameters()[1:]))
    assert not torch.equal(weights[0], parameters()[0])


@pytest.mark.parametrize(
    ("economy", "what"), [(EIGHT_BITS, "optimizer: adamw8bit"), (HALF, "weights: bfloat16")], ids=["states", "weights"]
)
@pytest.mark.parametrize("use", [check_installed, lambda economy: optimizer_of(parameters(), 1e-3, 0.0, economy)])
def test_a_missing_package_is_named(
    economy: Economy, what: str, use: Callable[[Economy], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchao", None)
    monkeypatch.setitem(sys.modules, "torchao.optim", None)
    use(NO_ECONOMY)
    use(Economy(recompute=True))
    with pytest.raises(UserError) as error:
        use(economy)
    assert error.value.lines == (f"distillation.{what} needs the package torchao: pip install 'lmmpress[memory]'",)
