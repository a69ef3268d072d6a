"""The training loop of a distillation, for one process or several.

Shuffling depends only on the seed. The loss of an update is the sum over positions, averaged over its samples, however
they are divided into portions and processes. So the number of processes changes only rounding.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext

import torch
from accelerate import Accelerator

from lmmpress.distillation.loss import distillation_loss
from lmmpress.lmm.batches import Batch, Features, ahead, grouped
from lmmpress.lmm.examples import Examples
from lmmpress.progress import counter
from lmmpress.settings.distillation import Distillation

Logits = Callable[[torch.nn.Module, Batch], torch.Tensor]


def distill(
    model: torch.nn.Module,
    teacher: Callable[[Batch], torch.Tensor],
    student: Logits,
    examples: Examples,
    features: Features | None,
    settings: Distillation,
    seed: int,
    accelerator: Accelerator,
) -> list[float] | None:
    """Train `model` in place with Eq. 5. Returns the mean loss of each epoch, or None as soon as a loss is not finite.

    `teacher` and `student` compute the logits [positions, vocabulary] of a batch, which has the cached visual
    `features` [images, tokens, width] of its images if there are some, else their pixels. Only parameters that require
    a gradient are trained. Dropout is off: the student learns the teacher's function, not noise.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)
    generator = torch.Generator().manual_seed(seed)
    updates = math.ceil(len(examples.rows) / settings.batch_size) * settings.epochs
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: _schedule(done, updates, settings.warmup))
    model, optimizer = accelerator.prepare(model, optimizer)
    losses = []
    with counter("distil", updates) as advance:
        for _ in range(settings.epochs):
            total = 0.0
            order = grouped(examples, settings.batch_size, generator)
            portions = (portion for rows in order for portion in _portions(rows, settings, accelerator))
            batches = ahead(examples, portions, features)
            for rows in order:
                loss = _update(model, teacher, student, batches, rows, settings, accelerator)
                if not math.isfinite(loss):
                    return None
                accelerator.clip_grad_norm_(trained, settings.max_grad_norm)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
                total += loss * len(rows)
                advance(1)
            losses.append(total / len(examples.rows))
    return losses


def _update(
    model: torch.nn.Module,
    teacher: Callable[[Batch], torch.Tensor],
    student: Logits,
    batches: Iterator[Batch],
    rows: list[int],
    settings: Distillation,
    accelerator: Accelerator,
) -> float:
    """Accumulate the gradients of one update over this process's portions, which come next in `batches`. Returns the
    mean loss over the update's samples in all processes."""
    world = accelerator.num_processes
    weight = world / len(rows) if rows[accelerator.process_index :: world] else 0.0
    portions = _portions(rows, settings, accelerator)
    total = torch.zeros((), device=accelerator.device)
    for number in range(len(portions)):
        last = number == len(portions) - 1
        with nullcontext() if last else accelerator.no_sync(model):
            batch = next(batches).to(accelerator.device)
            logits = student(model, batch)
            loss = distillation_loss(logits, teacher(batch), batch.targets, settings).sum() * weight
            accelerator.backward(loss)
        total += loss.detach()
    return float(accelerator.reduce(total, "mean"))


def _portions(rows: list[int], settings: Distillation, accelerator: Accelerator) -> list[list[int]]:
    """This process's rows of one update, as many at a time as fit.

    Every process must take part in every update: one without rows computes one of another, with weight zero.
    """
    own_rows = rows[accelerator.process_index :: accelerator.num_processes] or rows[:1]
    size = settings.micro_batch_size
    return [own_rows[at : at + size] for at in range(0, len(own_rows), size)]


def _schedule(done: int, updates: int, warmup: float) -> float:
    """The factor of the learning rate after `done` updates: linear warm-up, then a half cosine down to zero."""
    rising = max(1, round(updates * warmup))
    if done < rising:
        return (done + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (done - rising) / max(1, updates - rising)))
