"""The loss of an image side that learns from features."""

import torch

from lmmpress.distillation.image_side import features_loss


def test_it_is_the_squared_distance_of_each_image_in_units_of_the_teachers_square() -> None:
    teacher = torch.randn(3, 4, 5, dtype=torch.float64)
    assert features_loss(teacher, teacher) == 0
    assert torch.isclose(features_loss(torch.zeros_like(teacher), teacher), torch.tensor(3.0, dtype=torch.float64))
    far = teacher * torch.tensor([1.0, 3.0, 0.5])[:, None, None]
    assert torch.isclose(features_loss(far, teacher), torch.tensor(0 + 4 + 0.25, dtype=torch.float64))


def test_an_image_counts_as_much_whatever_the_size_of_its_features() -> None:
    student, teacher = torch.randn(2, 1, 4, 5)
    assert torch.isclose(features_loss(student, teacher), features_loss(1000 * student, 1000 * teacher))


def test_features_of_zero_and_of_half_precision_give_finite_losses() -> None:
    assert features_loss(torch.zeros(1, 2, 3), torch.zeros(1, 2, 3)) == 0
    large = torch.full((1, 64, 64), 300.0, dtype=torch.float16)
    assert features_loss(2 * large, large) == 1
