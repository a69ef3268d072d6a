"""What the parts of a step take, by computing them with shadows of their models: portions of rows to learn from, to
score on, to answer, or to look at."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch

from lmmpress.distillation.image_side import features_loss
from lmmpress.distillation.loss import States, loss_in_portions
from lmmpress.lmm.anatomy import Anatomy
from lmmpress.lmm.batches import Batch
from lmmpress.lmm.forward import image_features, logits_of
from lmmpress.lmm.recompute import recompute_blocks
from lmmpress.lmm.shadow import Meter, Taken, shadow_of, shadows
from lmmpress.pruning.memory import bytes_of_averages
from lmmpress.settings.distillation import Distillation
from lmmpress.settings.economy import NO_ECONOMY, Economy


@dataclass(frozen=True)
class Portion:
    """Rows that go through a model at a time: how many, the `tokens` of the longest, with those of its images and, in a
    decoder, of its answer; the answer positions of all (`answers`), and the images of all."""

    rows: int
    tokens: int
    answers: int
    images: int = 0


@dataclass(frozen=True)
class Pupil:
    """A student that learns: its anatomy and its teacher's, the prefixes of the tensors that stay (`frozen`), whether
    it computes in bfloat16 (`half`), whether it learns features with its image side alone, and how it saves memory."""

    student: Anatomy
    teacher: Anatomy
    frozen: tuple[str, ...] = ()
    half: bool = False
    image_side_alone: bool = False
    economy: Economy = NO_ECONOMY

    @property
    def computes_half(self) -> bool:
        """Whether it learns in bfloat16: a student with such weights always does."""
        return self.half or self.economy.weights == "bfloat16"

    def trains(self, tensor: str) -> bool:
        """Whether a tensor of the student changes."""
        if self.image_side_alone:
            return tensor.startswith(self.student.image_side)
        return not (self.frozen and tensor.startswith(self.frozen))


@dataclass(frozen=True)
class Learned:
    """What a `portion` takes that a student learns from, weights and gradients included, and what the `update` takes
    that is made of the gradients; `states` are the bytes that the optimizer keeps between updates, `beside` those of
    the teacher that stay on the device, `lasting` those of all that stays while a student learns: weights, gradients,
    states, and what is beside."""

    portion: Taken
    update: Taken
    states: int
    beside: int
    lasting: int

    @property
    def peak(self) -> int:
        """The bytes held at most."""
        return max(self.portion.peak + self.states + self.beside, self.lasting)


@dataclass(frozen=True)
class AtHand:
    """What of the teacher's work caches have, in a plan that has caches: the `features` of images, where the image side
    is frozen, and the `states` of answers."""

    features: bool = True
    states: bool = True


ALL = AtHand()


def learned(pupil: Pupil, portion: Portion, settings: Distillation, at_hand: AtHand = ALL) -> Learned:
    """What an update of a distillation takes whose portions are such rows. An optimizer of torchao is counted by its
    averages; its update moves as many bytes as that of torch's own, or fewer."""
    teaching, learning = (
        torch.bfloat16 if half else torch.float32 for half in (pupil.half, pupil.economy.weights == "bfloat16")
    )
    with shadows():
        model = shadow_of(pupil.student.config, learning)
        if pupil.economy.recompute:
            recompute_blocks(model, pupil.student)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(pupil.trains(name))
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        teacher = shadow_of(pupil.teacher.config, teaching).requires_grad_(False)
        has_states = bool(settings.caches) and at_hand.states
        sees_once = bool(settings.caches and pupil.frozen) and at_hand.features
        loss = _loss_of(pupil, model, teacher, portion, settings, AtHand(sees_once, has_states))
        if settings.batch_size > settings.rows_at_once:  # later portions add to the gradients of earlier ones
            for parameter in trained:
                parameter.grad = torch.empty_like(parameter)
        with Meter() as meter:
            meter.hold(_kept(model))
            loss().backward()
        with Meter() as after:
            after.hold(_kept(model))
            held = after.taken.left
            torch.nn.utils.clip_grad_norm_(trained, settings.max_grad_norm)
            torch.optim.AdamW(trained, fused=True).step()
        stays: torch.nn.Module = teacher.get_output_embeddings() if has_states else teacher  # type: ignore[operator]
        beside = sum(tensor.numel() * tensor.element_size() for tensor in stays.parameters())
    states = ceil(bytes_of_averages(pupil.economy) * sum(one.numel() for one in trained))
    return Learned(meter.taken, after.taken, states, beside, held + states + beside)


@dataclass(frozen=True)
class Passed:
    """What a portion takes: forward through a model, and with the backward pass of the loss of its answers."""

    forward: Taken
    both: Taken


def passed(anatomy: Anatomy, portion: Portion, half: bool, seen: bool, learns: bool = True) -> Passed:
    """What a portion takes of a model whose weights are of the type that it computes in, as scoring and measuring load
    it; the visual features of its images are at hand if they were `seen` before. Only if it `learns` there is a
    backward pass, and what that needs is kept."""
    with shadows():
        model = shadow_of(anatomy.config, torch.bfloat16 if half else torch.float32)
        head: torch.nn.Module = model.get_output_embeddings()  # type: ignore[operator]
        forward = _forward_of(model, anatomy, portion, seen)
        with Meter() as meter, torch.set_grad_enabled(learns):
            meter.hold(_kept(model))
            logits = head(forward()).float()
            first = meter.taken
            if learns:
                targets = torch.empty(len(logits), dtype=torch.long)
                torch.nn.functional.cross_entropy(logits, targets, reduction="sum").backward()
        return Passed(first, meter.taken)


@dataclass(frozen=True)
class Looked:
    """What it takes to compute the visual features of some images, and the bytes of one image's."""

    taken: Taken
    features: int


def looked(anatomy: Anatomy, images: int, half: bool) -> Looked:
    """What the image side takes for so many images."""
    assert anatomy.projector is not None, "only a model with images has an image side"
    with shadows(), torch.no_grad():
        model, pixels = shadow_of(anatomy.config, torch.bfloat16 if half else torch.float32), _pixels(anatomy, images)
        with Meter() as meter:
            meter.hold(_kept(model))
            features = image_features(model, pixels, anatomy.projector)
        return Looked(meter.taken, features[0].numel() * features.element_size())


def _kept(model: torch.nn.Module) -> Iterator[torch.Tensor]:
    """What of a model is held before anything is computed."""
    for parameter in model.parameters():
        yield parameter
        if parameter.grad is not None:
            yield parameter.grad
    yield from model.buffers()


def _loss_of(
    pupil: Pupil,
    model: torch.nn.Module,
    teacher: torch.nn.Module,
    portion: Portion,
    settings: Distillation,
    at_hand: AtHand,
) -> Callable[[], torch.Tensor]:
    """A function that computes a portion's loss."""
    projector = pupil.student.projector
    if pupil.image_side_alone and projector is not None:
        pixels = _pixels(pupil.student, portion.images)

        def of_features() -> torch.Tensor:
            with _computing(pupil.computes_half):
                features = image_features(model, pixels, projector)
            return features_loss(features, torch.empty_like(features))

        return of_features
    forward, teach = _forward_of(model, pupil.student, portion, at_hand.features), None
    if not at_hand.states:
        teach = _forward_of(teacher, pupil.teacher, portion, at_hand.features)
    head, goal = (one.get_output_embeddings() for one in (model, teacher))  # type: ignore[operator]
    targets = torch.empty(portion.answers, dtype=torch.long)

    def logits(states: torch.Tensor) -> torch.Tensor:
        with _computing(pupil.computes_half):
            found: torch.Tensor = head(states)
        return found

    def of_answers() -> torch.Tensor:
        with _computing(pupil.computes_half):
            own = forward()
        with torch.no_grad():
            cached = torch.empty(portion.answers, goal.weight.shape[1], dtype=goal.weight.dtype)
            other = cached if teach is None else teach()
        weights = tuple(weight for weight in head.parameters() if weight.requires_grad)
        return loss_in_portions(States(own, logits, weights), States(other, goal), targets, settings)

    return of_answers


def _forward_of(model: torch.nn.Module, anatomy: Anatomy, portion: Portion, seen: bool) -> Callable[[], torch.Tensor]:
    """A function that computes the inputs [answers, width] of a model's head."""
    ids = torch.empty(portion.rows, portion.tokens, dtype=torch.long)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if model.config.get_text_config().is_encoder_decoder:  # type: ignore[union-attr,operator]
        inputs["decoder_input_ids"] = torch.empty(portion.rows, -(-portion.answers // portion.rows), dtype=torch.long)
    pixels = features = None
    if anatomy.projector is not None and portion.images:
        pixels = _pixels(anatomy, portion.images)
        if seen:
            with torch.no_grad():
                one = image_features(model, pixels[:1], anatomy.projector)
            pixels, features = None, torch.empty(portion.images, *one.shape[1:], dtype=one.dtype)
    nothing = torch.empty(0)
    batch = Batch([], inputs, nothing, nothing, nothing, nothing, pixels, features)
    head: torch.nn.Module = model.get_output_embeddings()  # type: ignore[operator]

    def at_answers(states: torch.Tensor) -> torch.Tensor:
        # as many positions as have answers: which ones is all the same
        return states.flatten(0, -2)[: portion.answers].clone()

    def forward() -> torch.Tensor:
        head.forward = at_answers  # of this module alone: its class keeps its own
        try:
            return logits_of(model, batch, anatomy.projector)
        finally:
            del head.forward

    return forward


def _pixels(anatomy: Anatomy, images: int) -> torch.Tensor:
    vision: Any = anatomy.config["vision_config"]
    size = vision["image_size"]
    return torch.empty(images, vision.get("num_channels", 3), size, size)


@contextmanager
def _computing(half: bool) -> Iterator[None]:
    """As a student with float32 weights computes: in bfloat16, if that is the plan's type."""
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        yield
