"""The distillation loss (Eq. 5): divergence from the teacher plus a pairwise hinge, at every answer position."""

import torch
from torch.nn import functional

from lmmpress.settings.distillation import Distillation


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
