"""Distillation written out plainly, from the paper and docs/plan.md: what the library's own loop is compared with.

One row at a time without padding, no cache, no fused optimiser, no library of schedules. It uses nothing of
`lmmpress.distillation`, so that a change there shows.
"""

import math
from typing import Any

import torch

from lmmpress.lmm.examples import Example, Examples
from lmmpress.settings.distillation import Distillation
from support.certain import certain


def answer_logits(model: torch.nn.Module, row: Example, examples: Examples) -> torch.Tensor:
    """Logits [answer, vocabulary] that predict each token of a row's answer."""
    inputs: dict[str, Any] = {"input_ids": torch.tensor([row.prompt + row.answer])}
    if row.images:
        inputs["pixel_values"] = certain(examples.pixels)[list(row.images)]
    logits: torch.Tensor = model(**inputs, use_cache=False).logits[0]
    return logits[len(row.prompt) - 1 : -1]


def eq5(student: torch.Tensor, teacher: torch.Tensor, gamma: float) -> torch.Tensor:
    """KL(student, teacher) plus gamma times the hinge on the student's own top token, summed over positions."""
    g, f = student.softmax(-1), teacher.softmax(-1)
    divergence = (g * (g.log() - f.log())).sum()
    top = g.argmax(-1)
    hinge = sum((f[place, token] - g[place, token]).clamp(min=0) for place, token in enumerate(top))
    return divergence + gamma * hinge


def shuffled(examples: Examples, batch_size: int, generator: torch.Generator) -> list[list[int]]:
    """Rows by update: random groups of 16 batches, each sorted by length, and then the batches in random order."""
    order = torch.randperm(len(examples.rows), generator=generator).tolist()
    updates = []
    for at in range(0, len(order), 16 * batch_size):
        group = sorted(order[at : at + 16 * batch_size], key=lambda row: len(examples.rows[row]))
        while group:
            updates.append(group[:batch_size])
            group = group[batch_size:]
    return [updates[place] for place in torch.randperm(len(updates), generator=generator).tolist()]


def share_of_rate(update: int, updates: int, warmup: float) -> float:
    """The share of the learning rate in update 0, 1, ...: it rises in equal steps and falls along half a cosine to
    zero."""
    rising = max(1, round(warmup * updates))
    if update < rising:
        return (update + 1) / rising
    return (1 + math.cos(math.pi * (update - rising) / max(1, updates - rising))) / 2


class AdamW:
    """AdamW as Loshchilov and Hutter's Algorithm 2 has it, with PyTorch's default betas and epsilon."""

    def __init__(self, parameters: list[torch.nn.Parameter], weight_decay: float) -> None:
        self.parameters, self.weight_decay, self.time = parameters, weight_decay, 0
        self.first = [torch.zeros_like(parameter) for parameter in parameters]
        self.second = [torch.zeros_like(parameter) for parameter in parameters]

    @torch.no_grad()
    def update(self, rate: float) -> None:
        self.time += 1
        for parameter, first, second in zip(self.parameters, self.first, self.second, strict=True):
            if parameter.grad is None:
                continue
            first.copy_(0.9 * first + 0.1 * parameter.grad)
            second.copy_(0.999 * second + 0.001 * parameter.grad**2)
            mean, square = first / (1 - 0.9**self.time), second / (1 - 0.999**self.time)
            parameter.copy_(parameter - rate * self.weight_decay * parameter - rate * mean / (square.sqrt() + 1e-8))


def distil_plainly(
    student: torch.nn.Module, teacher: torch.nn.Module, examples: Examples, settings: Distillation, seed: int
) -> list[float]:
    """Train those of the student's parameters that require a gradient; the mean loss of every epoch."""
    trained = [parameter for parameter in student.parameters() if parameter.requires_grad]
    optimizer = AdamW(trained, settings.weight_decay)
    generator = torch.Generator().manual_seed(seed)
    updates = settings.epochs * math.ceil(len(examples.rows) / settings.batch_size)
    done, losses = 0, []
    for _ in range(settings.epochs):
        seen = []
        for rows in shuffled(examples, settings.batch_size, generator):
            for number in rows:
                row = examples.rows[number]
                with torch.no_grad():
                    wanted = answer_logits(teacher, row, examples)
                loss = eq5(answer_logits(student, row, examples), wanted, settings.gamma)
                (loss / len(rows)).backward()
                seen.append(loss.item())
            norm = math.sqrt(sum(float((one.grad**2).sum()) for one in trained if one.grad is not None))
            share = settings.max_grad_norm / (norm + 1e-6)  # PyTorch adds 1e-6, too
            for parameter in trained:
                if parameter.grad is not None and share < 1:
                    parameter.grad *= share
            optimizer.update(float(settings.learning_rate) * share_of_rate(done, updates, settings.warmup))
            student.zero_grad()
            done += 1
        losses.append(sum(seen) / len(seen))
    return losses
