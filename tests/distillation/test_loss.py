"""Eq. 5 against numbers worked out by hand."""

import math
from typing import Any

import pytest
import torch
from support.certain import certain
from torch.utils._python_dispatch import TorchDispatchMode

from lmmpress.distillation.loss import States, distillation_loss, loss_in_portions, states_apart
from lmmpress.settings.distillation import Distillation

# the student is sure of token 0 (0.7), the teacher of token 1 (0.5); the answer is token 1
G = torch.tensor([[0.7, 0.2, 0.1]]).log()
F = torch.tensor([[0.3, 0.5, 0.2]]).log()
ANSWER = torch.tensor([1])
REVERSE = 0.7 * math.log(0.7 / 0.3) + 0.2 * math.log(0.2 / 0.5) + 0.1 * math.log(0.1 / 0.2)
FORWARD = 0.3 * math.log(0.3 / 0.7) + 0.5 * math.log(0.5 / 0.2) + 0.2 * math.log(0.2 / 0.1)


def loss(student: torch.Tensor = G, teacher: torch.Tensor = F, **settings: Any) -> float:
    return distillation_loss(student, teacher, ANSWER, Distillation(**settings)).item()


@pytest.mark.parametrize(("kl", "wanted"), [("reverse", REVERSE), ("forward", FORWARD)])
def test_the_divergence_alone(kl: str, wanted: float) -> None:
    assert loss(kl=kl, pairwise="none") == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("kl", ["reverse", "forward"])
def test_a_temperature_softens_the_divergence_alone(kl: str) -> None:
    """At 2 probabilities are their square roots, scaled to add up to 1, and the divergence counts four times."""
    soft = [[share**0.5 for share in shares] for shares in ((0.7, 0.2, 0.1), (0.3, 0.5, 0.2))]
    g, f = ([share / sum(shares) for share in shares] for shares in soft)
    first, second = (g, f) if kl == "reverse" else (f, g)
    wanted = 4 * sum(one * math.log(one / other) for one, other in zip(first, second, strict=True))
    assert loss(kl=kl, temperature=2.0, pairwise="none") == pytest.approx(wanted, rel=1e-5)
    others: dict[str, Any] = {"pairwise": "margin", "gamma": 3.0, "hard_labels": 0.5}
    added = 3 * (0.7 - 0.2) - 0.5 * math.log(0.2)
    assert loss(kl=kl, temperature=2.0, **others) == pytest.approx(wanted + added, rel=1e-5)


def test_a_high_temperature_matches_logits() -> None:
    """The limit that Hinton et al. give: half the mean square of the differences of centred logits, as their sum over
    tokens by their number. Both directions are the same there."""
    g, f = (logits - logits.mean() for logits in (G, F))
    wanted = ((g - f) ** 2).mean().item() / 2
    for kl in ("reverse", "forward"):
        found = distillation_loss(G.double(), F.double(), ANSWER, Distillation(kl=kl, temperature=1e3, pairwise="none"))
        assert found.item() == pytest.approx(wanted, rel=1e-2)


def test_eq5_hinges_on_the_students_own_top_token() -> None:
    """The student's top token is 0: the teacher gives it 0.3, the student 0.7, so the hinge is at rest."""
    assert loss(pairwise="eq5", gamma=2.0) == pytest.approx(REVERSE, rel=1e-6)


def test_eq5_pulls_up_a_student_less_sure_of_its_top_token_than_the_teacher() -> None:
    """Roles exchanged: the top token is 1, the teacher gives it 0.2 and the student 0.5; then 0.5 against 0.8."""
    assert loss(student=F, teacher=G, pairwise="eq5") == pytest.approx(FORWARD, rel=1e-6)
    sure = torch.tensor([[0.1, 0.8, 0.1]]).log()
    hinge = loss(student=F, teacher=sure, pairwise="eq5") - loss(student=F, teacher=sure, pairwise="none")
    assert hinge == pytest.approx(0.8 - 0.5, rel=1e-5)


def test_margin_compares_the_correct_token_with_the_strongest_wrong_one() -> None:
    assert loss(pairwise="margin", gamma=3.0) == pytest.approx(REVERSE + 3 * (0.7 - 0.2), rel=1e-6)
    assert loss(student=F, teacher=F, pairwise="margin") == pytest.approx(0, abs=1e-6)


def test_hard_labels_add_cross_entropy() -> None:
    assert loss(pairwise="none", hard_labels=0.5) == pytest.approx(REVERSE - 0.5 * math.log(0.2), rel=1e-6)


def test_states_are_apart_by_their_differences_in_units_of_the_teachers() -> None:
    teacher = torch.tensor([[3.0, 4.0], [0.0, 2.0]], requires_grad=True)
    student = torch.tensor([[3.0, 3.0], [1.0, 2.0]], requires_grad=True)
    apart = states_apart(student, teacher)
    assert apart.item() == pytest.approx(1 / 25 + 1 / 4)
    assert states_apart(10 * student, 10 * teacher).item() == pytest.approx(apart.item())
    apart.backward()
    assert teacher.grad is None
    assert certain(student.grad).tolist() == [[0.0, pytest.approx(-2 / 25)], [pytest.approx(2 / 4), 0.0]]


def test_a_student_equal_to_its_teacher_has_no_loss_and_no_gradient() -> None:
    student = F.clone().requires_grad_()
    distillation_loss(student, F, ANSWER, Distillation()).sum().backward()
    assert certain(student.grad).abs().max() < 1e-6


def test_no_gradient_reaches_the_teacher() -> None:
    teacher = F.clone().requires_grad_()
    student = G.clone().requires_grad_()
    distillation_loss(student, teacher, ANSWER, Distillation(pairwise="margin")).sum().backward()
    assert teacher.grad is None
    assert student.grad is not None


class Seen(TorchDispatchMode):
    """Keeps the largest number of rows of a tensor with as many columns as the vocabulary has tokens."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.vocabulary, self.most = vocabulary, 0

    def __torch_dispatch__(self, called: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = called(*args, **kwargs or {})
        if isinstance(found, torch.Tensor) and found.ndim == 2 and found.shape[1] == self.vocabulary:
            self.most = max(self.most, len(found))
        return found


@pytest.mark.parametrize("most", [1, 30 * 50, 70 * 50 + 49, 110 * 50, 1 << 20])
@pytest.mark.parametrize(
    "settings", [{}, {"kl": "forward", "pairwise": "margin", "hard_labels": 0.5, "temperature": 2}]
)
def test_portions_give_loss_and_gradients_of_all_positions_at_once(most: int, settings: dict[str, Any]) -> None:
    """And no more logits are made at a time than a portion has, forward and backward."""
    torch.manual_seed(0)
    positions, width, vocabulary = 110, 6, 50
    student, teacher = torch.nn.Linear(width, vocabulary).double(), torch.nn.Linear(4, vocabulary).double()
    own, other = torch.randn(positions, width).double(), torch.randn(positions, 4).double()
    targets, plan = torch.randint(vocabulary, (positions,)), Distillation(**settings)
    parameters = [own.requires_grad_(), *student.parameters()]
    wanted = distillation_loss(student(own), teacher(other), targets, plan).sum()
    gradients = torch.autograd.grad(wanted, parameters)
    with Seen(vocabulary) as seen:
        head = States(own, student, tuple(student.parameters()))
        found = loss_in_portions(head, States(other, teacher), targets, plan, most)
        again = torch.autograd.grad(found, parameters)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)
    for one, same in zip(again, gradients, strict=True):
        torch.testing.assert_close(one, same, rtol=1e-10, atol=1e-12)
    transposed_weight = width
    assert seen.most <= max(transposed_weight, most // vocabulary)
    assert all(parameter.grad is None for parameter in teacher.parameters())
