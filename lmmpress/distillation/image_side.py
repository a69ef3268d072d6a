"""Training the image side of a model alone: its visual features are to be those of the teacher.

The language side reads pictures only through these features. So an image side whose features are the teacher's gives
the teacher's answers, and no language tower has to run to learn it. (Romero et al., FitNets, 2015, train
with what a layer of the teacher hands over.)
"""

import torch


def features_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """The sum over images of |student - teacher|^2 / |teacher|^2, for features [images, tokens, width] of both. It is
    computed in float32, or in float64 for float64 features."""
    dtype = torch.promote_types(student.dtype, torch.float32)
    goal = teacher.to(dtype).flatten(1)
    distance = (student.to(dtype).flatten(1) - goal).square().sum(1)
    return (distance / goal.square().sum(1).clamp_min(torch.finfo(dtype).tiny)).sum()
