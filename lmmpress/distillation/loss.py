"""The distillation loss (Eq. 5): divergence from the teacher plus a pairwise hinge, at every answer position."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from lmmpress.settings.distillation import Distillation

MOST_LOGITS = 1 << 25
"""Of one portion: 128 MiB in float32. The loss holds some tensors of this size."""


@dataclass(frozen=True)
class States:
    """What the logits of some answer positions come from: the `inputs` [positions, width] of a head, the head, and the
    weights of it that learn."""

    inputs: torch.Tensor
    head: Callable[[torch.Tensor], torch.Tensor]
    weights: tuple[torch.Tensor, ...] = ()


def distillation_loss(
    student: torch.Tensor, teacher: torch.Tensor, targets: torch.Tensor, settings: Distillation
) -> torch.Tensor:
    """Eq. 5 at each answer position, [positions]; the sum over the positions of a sample is the loss of that sample.

    `student` and `teacher` are logits [positions, vocabulary]. `targets` [positions] are the answer's tokens; only
    `margin` and hard labels use them. The temperature is one of the divergence alone. No gradient reaches the teacher,
    and a hinge at zero gives no gradient. The loss is computed in float32, or in float64 for float64 logits.
    """
    log_g = functional.log_softmax(_precise(student), dim=-1)
    log_f = functional.log_softmax(_precise(teacher.detach()), dim=-1)
    loss = _divergence(log_g, log_f, settings)
    if settings.gamma and settings.pairwise != "none":
        hinge = _own_top(log_g, log_f) if settings.pairwise == "eq5" else _margin(log_g, targets)
        loss = loss + settings.gamma * hinge
    if settings.hard_labels:
        loss = loss + settings.hard_labels * functional.nll_loss(log_g, targets, reduction="none")
    return loss


def states_apart(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """How far the inputs of two heads [positions, width] are apart, summed over positions: the mean square of their
    differences over that of the teacher's inputs. No gradient reaches the teacher."""
    own, goal = _precise(student), _precise(teacher.detach())
    return ((own - goal).square().mean(-1) / goal.square().mean(-1)).sum()


def loss_in_portions(
    student: States, teacher: States, targets: torch.Tensor, settings: Distillation, most: int = MOST_LOGITS
) -> torch.Tensor:
    """The sum of `distillation_loss` over all positions, from the inputs of both heads.

    No more than `most` logits of a model are made at a time, of one position at least. Their gradients are computed at
    once, so that they can be let go of, and only those of the head's inputs and weights are kept for the backward pass.
    So memory does not grow with positions times vocabulary, and nothing is computed twice. What fits into one portion
    is computed as usual.
    """

    def loss_of(own: torch.Tensor, other: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            goal = teacher.head(other)
        return distillation_loss(student.head(own), goal, tokens, settings).sum()

    size, weights = _positions(student, most), student.weights
    if len(targets) <= size:
        return loss_of(student.inputs, teacher.inputs, targets)
    found: torch.Tensor = _InPortions.apply(student.inputs, teacher.inputs, targets, loss_of, size, *weights)
    return found


class _InPortions(torch.autograd.Function):
    """The sum of a loss over portions of positions, whose gradients are computed with it."""

    @staticmethod
    def forward(
        context: Any,
        own: torch.Tensor,
        other: torch.Tensor,
        targets: torch.Tensor,
        loss_of: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor],
        size: int,
        *weights: torch.Tensor,
    ) -> torch.Tensor:
        of_inputs, of_weights = torch.empty_like(own), [torch.zeros_like(weight) for weight in weights]
        losses = []
        for at in range(0, len(targets), size):
            part = slice(at, at + size)
            with torch.enable_grad():
                inputs = own[part].detach().requires_grad_()
                loss = loss_of(inputs, other[part], targets[part])
            of_inputs[part], *others = torch.autograd.grad(loss, (inputs, *weights))
            for total, one in zip(of_weights, others, strict=True):
                total += one
            losses.append(loss.detach())
        context.save_for_backward(of_inputs, *of_weights)
        return torch.stack(losses).sum()

    @staticmethod
    def backward(context: Any, *outer: torch.Tensor) -> Any:
        of_inputs, *of_weights = context.saved_tensors
        factor = outer[0]
        return (of_inputs * factor, None, None, None, None, *(one * factor for one in of_weights))


def _positions(student: States, most: int) -> int:
    """How many positions have at most so many logits; one if the vocabulary is larger."""
    with torch.no_grad():
        vocabulary = student.head(student.inputs[:1]).shape[-1]
    return max(1, most // vocabulary)


def _precise(logits: torch.Tensor) -> torch.Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _divergence(log_g: torch.Tensor, log_f: torch.Tensor, settings: Distillation) -> torch.Tensor:
    """`reverse` is KL(g, f) as in Eq. 5, with the student first; `forward` is KL(f, g).

    With a temperature T, g and f are those of the logits over T, and the divergence counts T^2 times: its gradient
    becomes T^2 times smaller (Hinton et al. 2015), and so stays of one size with the hinge.
    """
    heat = settings.temperature
    if heat != 1:
        log_g, log_f = (functional.log_softmax(one / heat, dim=-1) for one in (log_g, log_f))
        return heat**2 * _divergence(log_g, log_f, settings.model_copy(update={"temperature": 1.0}))
    if settings.kl == "reverse":
        return (log_g.exp() * (log_g - log_f)).sum(-1)
    return (log_f.exp() * (log_f - log_g)).sum(-1)


def _own_top(log_g: torch.Tensor, log_f: torch.Tensor) -> torch.Tensor:
    """The second term of Eq. 5: max(0, f(T) - g(T)) for the student's own top token T."""
    top = log_g.argmax(-1, keepdim=True)
    return functional.relu(log_f.gather(-1, top).exp() - log_g.gather(-1, top).exp()).squeeze(-1)


def _margin(log_g: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """max(0, g(wrong) - g(correct)) for the most likely wrong token, as in the paper's introduction."""
    correct = log_g.gather(-1, targets[:, None]).exp().squeeze(-1)
    wrong = log_g.scatter(-1, targets[:, None], float("-inf")).amax(-1).exp()
    return functional.relu(wrong - correct)
