"""Scores follow Eq. 1-4."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.certain import certain
from support.small_memory import memory_for
from torch.utils._python_dispatch import TorchDispatchMode

from lmmpress.data import read_split
from lmmpress.errors import UserError
from lmmpress.lmm.anatomy import Anatomy
from lmmpress.lmm.at_once import remembering
from lmmpress.lmm.batches import Batch, Batches, grouped, make_batch
from lmmpress.lmm.checkpoint import load_model, read_checkpoint
from lmmpress.lmm.examples import encode
from lmmpress.lmm.forward import answer_logits
from lmmpress.lmm.processor import load_processor
from lmmpress.progress import Said, listening
from lmmpress.pruning import importance, sums
from lmmpress.pruning.choose import choose
from lmmpress.pruning.importance import Scored, agreement, answer_loss, own_answer_loss, score
from lmmpress.pruning.prune_checkpoint import prune_checkpoint
from lmmpress.settings.importance import Importance


@dataclass(frozen=True)
class Scene:
    """A model in float64, its anatomy, batches of four and of single samples, and the loss."""

    model: torch.nn.Module
    anatomy: Anatomy
    batches: dict[int, Batches]
    loss: Callable[[Batch], torch.Tensor]


@pytest.fixture(scope="module")
def scene(make_checkpoint: Callable[..., Path], data: Path) -> Scene:
    checkpoint = make_checkpoint("llama")
    model, anatomy = load_model(checkpoint).double(), read_checkpoint(checkpoint)
    examples = encode(read_split(data, "score"), load_processor(checkpoint), read_checkpoint(checkpoint).config)
    made = {size: Batches(examples, grouped(examples, size)) for size in (1, 4)}

    def loss(batch: Batch) -> torch.Tensor:
        return answer_loss(answer_logits(model, batch, None), batch)

    return Scene(model, anatomy, made, loss)


def run(scene: Scene, size: int = 4, **settings: Any) -> Scored:
    seeded = torch.Generator().manual_seed(0)
    batches = scene.batches[size]
    samples = sum(len(batch.examples) for batch in batches)
    return score(scene.model, scene.anatomy, batches, samples, scene.loss, Importance(**settings), seeded)


def elementwise(scene: Scene, size: int, accumulation: str) -> dict[str, torch.Tensor]:
    """|g * theta| of every parameter, by plain autograd, accumulated as asked."""
    model, made = scene.model, scene.batches
    samples = sum(len(batch.examples) for batch in made[size])
    total = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    for batch in made[size]:
        model.zero_grad()
        (scene.loss(batch) * len(batch.examples) / samples).backward()
        for name, parameter in model.named_parameters():
            grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            product = grad * parameter.detach()
            total[name] += product if accumulation == "dataset" else product.abs()
    model.zero_grad()
    return {name: value.abs() for name, value in total.items()}


def brute_force(anatomy: Anatomy, parts: dict[str, torch.Tensor], counted_only: bool) -> dict[str, torch.Tensor]:
    """Eq. 2-4 dimension by dimension: the sum over all elements that a dimension owns."""
    scores = {}
    for name, group in anatomy.groups().items():
        totals = torch.zeros(group.size, dtype=torch.float64)
        for piece in group.slices:
            if piece.counted or not counted_only:
                value = parts[piece.tensor].movedim(piece.dim, 0)
                outer, size, inner = piece.view
                for place in range(outer * size * inner):
                    totals[piece.offset + place // inner % size] += value[place].sum()
        scores[name] = totals
    return scores


@pytest.mark.parametrize(("accumulation", "size"), [("dataset", 4), ("batch", 4), ("sample", 1)])
@pytest.mark.parametrize("owned", ["equations", "all"])
def test_group_scores_equal_the_elementwise_sum(scene: Scene, accumulation: str, size: int, owned: str) -> None:
    found = run(scene, size, accumulation=accumulation, owned=owned).scores
    wanted = brute_force(scene.anatomy, elementwise(scene, size, accumulation), owned == "equations")
    assert found.keys() == wanted.keys()
    for name in wanted:
        assert torch.allclose(found[name].double(), wanted[name], rtol=1e-9), name


def test_an_element_score_is_the_loss_change_when_the_element_shrinks(
    make_checkpoint: Callable[..., Path], data: Path
) -> None:
    """Eq. 1: (L(theta) - L((1 - e) theta)) / e tends to dL/dtheta * theta as e shrinks.

    On OPT, since transformers' RMS norms compute in float32 whatever the model's dtype.
    """
    checkpoint = make_checkpoint("opt")
    model = load_model(checkpoint).double()
    examples = encode(read_split(data, "score"), load_processor(checkpoint), read_checkpoint(checkpoint).config)
    batch = make_batch(examples, [0, 1, 2, 3])

    def loss() -> torch.Tensor:
        return answer_loss(answer_logits(model, batch, None), batch)

    loss().backward()
    generator = torch.Generator().manual_seed(0)
    for name in ("self_attn.k_proj", "self_attn.out_proj", "fc1", "fc2"):
        parameter = model.get_submodule(f"language_model.model.decoder.layers.1.{name}").get_parameter("weight")
        place = tuple(int(torch.randint(0, size, (), generator=generator)) for size in parameter.shape)
        wanted, before = float(certain(parameter.grad)[place] * parameter[place]), float(parameter[place])
        errors = []
        with torch.no_grad():
            for shrink in (1e-2, 1e-3, 1e-4):
                start = float(loss())
                parameter[place] = before * (1 - shrink)
                errors.append(abs((start - float(loss())) / shrink - wanted))
                parameter[place] = before
        assert errors[2] <= errors[0] / 10 or errors[2] < 1e-9


@pytest.mark.parametrize("passes", [2, 5])
def test_several_passes_give_the_scores_of_one(scene: Scene, passes: int) -> None:
    one = run(scene, accumulation="dataset").scores
    several = run(scene, accumulation="dataset", passes=passes).scores
    assert all(torch.allclose(one[name], several[name], rtol=1e-9) for name in one)


def test_magnitude_sums_absolute_weights(scene: Scene) -> None:
    weights = {name: value.detach().abs() for name, value in scene.model.named_parameters()}
    wanted = brute_force(scene.anatomy, weights, True)
    found = run(scene, criterion="magnitude")
    assert found.reliability is None
    assert all(torch.allclose(found.scores[name], wanted[name], rtol=1e-9) for name in wanted)


def test_random_scores_depend_on_the_seed_alone(scene: Scene) -> None:
    first, second = run(scene, criterion="random").scores, run(scene, criterion="random").scores
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("accumulation", ["dataset", "batch"])
def test_scoring_leaves_no_gradient_and_no_flag_behind(scene: Scene, accumulation: str) -> None:
    model = scene.model
    before = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    run(scene, accumulation=accumulation)
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == before
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    "settings", [{}, {"accumulation": "batch"}, {"criterion": "fisher"}, {"criterion": "magnitude"}]
)
def test_tensors_are_summed_block_by_block(
    scene: Scene, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that no tensor has the size of a gradient beside it; the sums are those of whole tensors."""
    wanted = run(scene, **settings).scores
    monkeypatch.setattr(sums, "BLOCK", 100)
    found = run(scene, **settings).scores
    assert all(torch.allclose(found[name], wanted[name], rtol=1e-9) for name in wanted)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("shape", [(7,), (5, 7), (3, 5, 2, 4)])
def test_reductions_add_what_matrix_products_add(shape: tuple[int, ...], signed: bool) -> None:
    """The first are for GPUs, the second for CPUs."""
    part = torch.randn(shape, generator=torch.Generator().manual_seed(0)).double()
    both = [{dim: torch.ones(shape[dim]).double() for dim in range(min(2, len(shape)))} for _ in range(2)]
    sums._by_reduction(both[0], part, 0.5, signed)
    sums._by_products(both[1], part.clone(), 0.5, signed)
    for dim, found in both[0].items():
        others = [other for other in range(part.ndim) if other != dim]
        values = part if signed else part.abs()
        wanted = 1 + 0.5 * (values.sum(others) if others else values)
        assert torch.allclose(found, wanted)
        assert torch.allclose(both[1][dim], wanted)


@pytest.mark.parametrize("settings", [{}, {"accumulation": "batch"}])
def test_scoring_reads_back_no_number_that_the_model_does_not(scene: Scene, settings: dict[str, Any]) -> None:
    """A GPU would wait for the host each time."""
    with Reads() as bare:
        for batch in scene.batches[4]:
            scene.loss(batch).backward()
    scene.model.zero_grad()
    with Reads() as scoring:
        run(scene, **settings, reliability=False)
    assert scoring.count == bare.count


class Reads(TorchDispatchMode):
    """Counts the numbers that are read out of tensors."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(("accumulation", "size"), [("batch", 4), ("sample", 1)])
def test_no_gradient_outlives_its_block(scene: Scene, accumulation: str, size: int) -> None:
    """When the first block has its gradients, which come last, those of the second block are gone."""
    held = set[str]()
    blocks = [scene.model.get_submodule(f"language_model.model.layers.{number}") for number in (0, 1)]

    def look(_: torch.nn.Parameter) -> None:
        held.update(name for name, parameter in blocks[1].named_parameters() if parameter.grad is not None)

    def loss(batch: Batch) -> torch.Tensor:
        handles.append(blocks[0].get_parameter("mlp.up_proj.weight").register_post_accumulate_grad_hook(look))
        return scene.loss(batch)

    handles: list[Any] = []
    run(replace(scene, loss=loss), size, accumulation=accumulation)
    for handle in handles:
        handle.remove()
    assert handles
    assert held == set()


@pytest.mark.parametrize("passes", [1, 2])
def test_without_reliability_one_gradient_is_summed_in_place(scene: Scene, passes: int) -> None:
    parameter = scene.model.get_parameter("language_model.model.layers.1.mlp.up_proj.weight")

    def places(**settings: Any) -> tuple[Scored, int]:
        """The scores, and how many gradients of that parameter there were."""
        seen: list[int] = []

        def loss(batch: Batch) -> torch.Tensor:
            if parameter.grad is not None and parameter.grad.data_ptr() not in seen:
                kept.append(parameter.grad)  # so that no other tensor gets its place
                seen.append(parameter.grad.data_ptr())
            return scene.loss(batch)

        kept: list[torch.Tensor] = []
        return run(replace(scene, loss=loss), 1, **settings, passes=passes), len(seen)

    (whole, two), (alone, one) = places(), places(reliability=False)
    assert (one, two) == (1, 2)
    assert alone.reliability is None
    assert all(torch.allclose(alone.scores[name], whole.scores[name], rtol=1e-9) for name in whole.scores)


@pytest.mark.parametrize("passes", [1, 3])
def test_reliability_is_left_out_where_a_second_gradient_does_not_fit(
    scene: Scene, passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In any of the passes; a line says so, once, and the scores stay."""
    wanted = run(scene, passes=passes)
    room = [1 << 40] * (passes - 1) + [100]
    monkeypatch.setattr(importance, "available_memory", lambda: room.pop(0))
    lines: list[str] = []
    with listening(lambda event: lines.append(event.words) if isinstance(event, Said) else None):
        found = run(scene, passes=passes)
    assert found.reliability is None
    assert wanted.reliability is not None
    assert all(torch.allclose(found.scores[name], wanted.scores[name], rtol=1e-9) for name in wanted.scores)
    assert len(lines) == 1
    assert "100 B are free" in lines[0]


@pytest.mark.parametrize("settings", [{"accumulation": "batch"}, {"criterion": "fisher"}])
def test_reliability_is_left_out_if_the_plan_says_so(scene: Scene, settings: dict[str, Any]) -> None:
    found, wanted = run(scene, **settings, reliability=False), run(scene, **settings)
    assert found.reliability is None
    assert all(torch.equal(found.scores[name], wanted.scores[name]) for name in wanted.scores)


def test_reliability_is_one_for_equal_halves_and_minus_one_for_opposite_ones() -> None:
    up, down = {"a": torch.arange(9.0)}, {"a": -torch.arange(9.0)}
    assert agreement(up, up) == pytest.approx(1)
    assert agreement(up, down) == pytest.approx(-1)


@pytest.mark.parametrize("size", [1, 4])
def test_fisher_squares_what_a_dimension_does_as_a_whole(scene: Scene, size: int) -> None:
    """The sum of g * theta over all that a dimension owns, for each batch, squared: what Eq. 2-4 sum in absolute values
    may cancel out, as between query and key."""
    batches = scene.batches[size]
    samples = sum(len(batch.examples) for batch in batches)
    wanted: dict[str, torch.Tensor] = {}
    for batch in batches:
        scene.model.zero_grad()
        scene.loss(batch).backward()
        parts = {
            name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad * parameter.detach()
            for name, parameter in scene.model.named_parameters()
        }
        for name, joint in brute_force(scene.anatomy, parts, True).items():
            wanted[name] = wanted.get(name, 0) + joint.square() * len(batch.examples) / samples
    scene.model.zero_grad()
    found = run(scene, size, criterion="fisher")
    assert found.reliability is not None
    for name in wanted:
        assert torch.allclose(found.scores[name].double(), wanted[name], rtol=1e-6, atol=1e-15), name


@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize(
    "settings",
    [
        {"accumulation": "dataset", "passes": 2},
        {"accumulation": "dataset", "reliability": False},
        {"accumulation": "batch"},
        {"criterion": "fisher"},
    ],
    ids=lambda settings: " ".join(map(str, settings.values())),
)
def test_batches_that_do_not_fit_into_the_memory_are_scored_in_portions(
    scene: Scene, settings: dict[str, Any], where: Any
) -> None:
    """Eq. 1 takes the absolute value, and fisher the square, of the gradient of a whole batch as before."""
    with remembering({"importance": 2}):
        wanted = run(scene, batch_size=4, **settings)
    with memory_for(2, scene.model, where=where) as seen, remembering({}) as at_once:
        found = run(scene, batch_size=4, **settings)
    assert (seen.count(4), max(seen[1:]), at_once) == (1, 2, {"importance": 2})
    assert found.reliability == pytest.approx(wanted.reliability)
    assert all(torch.allclose(found.scores[name], wanted.scores[name], rtol=1e-9) for name in wanted.scores)
    whole = run(scene, batch_size=4, **settings)
    assert all(torch.allclose(found.scores[name], whole.scores[name], rtol=1e-6) for name in whole.scores)


@pytest.mark.parametrize("room", [1 << 40, 100])
@pytest.mark.parametrize("reliability", [True, False])
def test_the_memory_may_run_out_in_the_second_half(
    scene: Scene, reliability: bool, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the first half's gradient is not put aside, it is in the sum that is begun anew."""
    monkeypatch.setattr(importance, "available_memory", lambda: room)
    wanted, half = run(scene, reliability=reliability), len(scene.batches[4][0::2])
    with memory_for(2, scene.model, after=half, where="backward") as seen:
        found = run(scene, reliability=reliability)
    assert seen.count(4) == half + 1
    assert (found.reliability is None) == (wanted.reliability is None)
    assert all(torch.allclose(found.scores[name], wanted.scores[name], rtol=1e-6) for name in wanted.scores)


def test_where_the_memory_runs_out_answers_are_drawn_as_if_portions_had_been_small_from_the_start(scene: Scene) -> None:
    def scored() -> Scored:
        seeded, batches = torch.Generator().manual_seed(0), scene.batches[4]

        def loss(batch: Batch) -> torch.Tensor:
            return own_answer_loss(answer_logits(scene.model, batch, None), batch, 2.0, seeded)

        settings = Importance(criterion="fisher", batch_size=4)
        return score(scene.model, scene.anatomy, batches, 8, loss, settings, seeded)

    with remembering({"importance": 2}):
        wanted = scored()
    with memory_for(2, scene.model, where="backward") as seen:
        found = scored()
    assert seen.count(4) == 1
    assert all(torch.allclose(found.scores[name], wanted.scores[name], rtol=1e-9) for name in wanted.scores)


def test_a_single_sample_that_does_not_fit_is_a_message_for_people(scene: Scene) -> None:
    with memory_for(0, scene.model) as seen, pytest.raises(UserError, match=r"^importance: the memory is too small"):
        run(scene, 1, accumulation="sample")
    assert seen == [1]


def test_own_answers_score_a_model_that_is_always_right() -> None:
    """The gradient of the answers vanishes where the model is sure and right; that of answers drawn from its softened
    distribution does not."""
    logits = torch.zeros(64, 8).index_fill(1, torch.tensor(0), 20.0).requires_grad_()
    batch = Batch([0], {}, torch.ones(1, 64).bool(), torch.zeros(64).long(), torch.zeros(64), torch.arange(64))
    (given,) = torch.autograd.grad(answer_loss(logits, batch), logits)
    seeded = torch.Generator().manual_seed(0)
    (own,) = torch.autograd.grad(own_answer_loss(logits, batch, 10.0, seeded), logits)
    assert given.abs().max() < 1e-6
    assert own.abs().max() > 1e-3


def test_one_cut_without_a_run_goes_by_the_same_scores(
    make_checkpoint: Callable[..., Path], data: Path, tmp_path: Path
) -> None:
    """`prune` scores by the criterion's own loss, with a seed that is always the same."""
    source, settings = make_checkpoint("llama"), Importance(criterion="fisher", batch_size=4, temperature=2.0)
    anatomy, model = read_checkpoint(source), load_model(source)
    examples = encode(read_split(data, "score"), load_processor(source), anatomy.config)
    batches = Batches(examples, grouped(examples, 4))
    seeded = torch.Generator().manual_seed(0)

    def loss(batch: Batch) -> torch.Tensor:
        return own_answer_loss(answer_logits(model, batch, None), batch, 2.0, seeded)

    scores = score(model, anatomy, batches, len(examples.rows), loss, settings, seeded).scores
    wanted = choose(anatomy, "language", "ffn", 16, scores)
    found = prune_checkpoint(source, tmp_path / "cut", "language", "ffn", 16, data, "score", settings)
    assert found.cuts == (wanted,)
