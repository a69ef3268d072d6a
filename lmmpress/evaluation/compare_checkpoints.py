"""Compares two checkpoints, A and B, on the same rows: what they answer, how fast, and what they need.

Answers first, one model in memory at a time; then memory, each alone; then speed, taking turns.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import geometric_mean, mean, median

import numpy as np
import torch
from accelerate import Accelerator

from lmmpress.data import Row, Split, read_split
from lmmpress.data.facts import Marks, SplitFacts, facts_of
from lmmpress.data.rows import check_unchanged, split_for_measuring, thumbnail
from lmmpress.errors import UserError
from lmmpress.evaluation.all_answers import AllAnswers, all_answers, answers_to, same_answers
from lmmpress.evaluation.comparison import (
    WITH_PICTURE,
    Compared,
    Comparison,
    Data,
    Difference,
    Differing,
    Energy,
    Kind,
    Memory,
    Ratio,
    Turns,
    badness,
)
from lmmpress.evaluation.generate import generate, questions
from lmmpress.evaluation.opened import Opened, give_memory_back, open_to_measure
from lmmpress.evaluation.paired import Paired, paired, paired_by_task
from lmmpress.evaluation.speed import Loading, Times, environment, in_all_ways, sampled, take_turns_apart
from lmmpress.files.allow_list import choose
from lmmpress.files.digest import digest_checkpoint
from lmmpress.host.energy import Meter, gpu_meter, processor_meter
from lmmpress.host.energy_use import gpu_uuids
from lmmpress.host.memory import available_memory
from lmmpress.host.peak_memory import measuring_memory
from lmmpress.lmm.anatomy import count_by_tower
from lmmpress.lmm.examples import Examples
from lmmpress.plan import Evaluation
from lmmpress.printing.terminal import fit
from lmmpress.progress import doing, say
from lmmpress.settings.reading import AS_IT_IS, Reading

_SIDE = 160  # largest side of a picture in pixels
_SHARE_OF_MEMORY = 0.5  # of the free memory may be weights, so that their calls have room


@dataclass(frozen=True)
class Asked:
    """What to compare on, and how. Without `split` it is the one of `split_for_measuring`; `tasks` are names of tasks,
    none for all; `watts` is the power that an estimate of the energy is made of; `reading` says how the rows are
    read."""

    split: str | None = None
    rows: int | None = None
    tasks: tuple[str, ...] = ()
    settings: Evaluation = field(default_factory=Evaluation)
    watts: float | None = None
    reading: Reading = AS_IT_IS


@dataclass(frozen=True)
class Side:
    """One of the two checkpoints: its address, its files, its digest; and which rows it answers right, booleans [rows],
    where that was measured before."""

    address: str
    opened: Opened
    digest: str
    right: Marks | None = None


@dataclass(frozen=True)
class _Measured:
    """What was measured of one checkpoint; `times` is None where no speed was asked for."""

    answers: AllAnswers
    memory: Memory
    times: Times | None


def compare_checkpoints(a: tuple[str, Path], b: tuple[str, Path], data: tuple[str, Path], asked: Asked) -> Comparison:
    """Compare two checkpoints, each an address and its local directory, on the rows of a data set.

    Raises UserError if one of them cannot be used, if they do not answer the same kind of rows, if rows do not fit
    them, and if rows change while they are compared.
    """
    if asked.watts is not None and not (math.isfinite(asked.watts) and asked.watts > 0):
        raise UserError(f"--watts {asked.watts:g}: it is the power of the device, a number above 0")
    if asked.rows is not None and asked.rows < 1:
        raise UserError(f"--rows {asked.rows}: compare on at least one row")
    begun = time.perf_counter()
    opened = (open_to_measure(a[1]), open_to_measure(b[1]))
    _check_kinds(*opened)
    split = _rows(data[1], asked)
    with doing("read the weights"):
        digests = [digest_checkpoint(one.folder) for one in opened]
    if digests[0] == digests[1]:
        say("A and B are the same checkpoint")
    one, other = (Side(side[0], files, digest) for side, files, digest in zip((a, b), opened, digests, strict=True))
    found = compare_measured(one, other, data[0], split, asked)
    return found.model_copy(update={"seconds": time.perf_counter() - begun})


def compare_measured(a: Side, b: Side, data: str, split: Split, asked: Asked) -> Comparison:
    """Compare two checkpoints that are opened, on the rows of a split of the data set with the address `data`.

    Where it is known which rows both of them answer right, those are not asked again. Raises UserError where rows
    change while they are compared.
    """
    begun, pair = time.perf_counter(), (a, b)
    meter = _meter()
    measured, together = _measure(pair, split, asked, meter)
    facts = facts_of(split)
    headlines = [_headline(one, found, facts, asked, meter) for one, found in zip(pair, measured, strict=True)]
    answers = (measured[0].answers, measured[1].answers)
    same = same_answers(*answers)
    overall, by_task = _differences(*answers, same, facts)
    return Comparison(
        a=headlines[0],
        b=headlines[1],
        data=Data(
            address=fit(data),
            split=split.name,
            digest=split.digest,
            rows=len(split.rows),
            images=len(split.images.names),
            tasks=sorted(set(asked.tasks)),
        ),
        all=overall,
        by_task=by_task,
        turns=_turns(measured[0].times, measured[1].times, together),
        differing=_differing(*answers, same, split),
        environment=environment(Accelerator().device, a.opened.dtype),
        seconds=time.perf_counter() - begun,
    )


def _check_kinds(a: Opened, b: Opened) -> None:
    sees = [bool(one.anatomy.image_towers) for one in (a, b)]
    if sees[0] != sees[1]:
        one, other = ("pictures", "text alone") if sees[0] else ("text alone", "pictures")
        raise UserError(f"A takes {one} and B takes {other}: compare checkpoints that answer the same rows")


def _rows(folder: Path, asked: Asked) -> Split:
    name = asked.split or split_for_measuring(folder, asked.reading)
    if asked.split is None and name != "test":
        say(f"{folder}: there is no split 'test'; the rows of {name!r} are compared")
    return read_split(folder, name, asked.rows, tuple(sorted(set(asked.tasks))), asked.reading)


def _measure(pair: Sequence[Side], split: Split, asked: Asked, meter: Meter | None) -> tuple[list[_Measured], bool]:
    """Everything that needs the models, and whether both were in memory at once."""
    answers, memories = [], []
    few, size = sampled(split, asked.settings), asked.settings.batch_size
    open_rows = _open_rows(*pair)
    for name, one in zip("AB", pair, strict=True):
        say(f"{name}: {one.address}")
        if one.right is None or open_rows is None:
            examples = one.opened.encoded(split)
            answers.append(all_answers(one.opened, examples, size))
        else:
            examples = one.opened.encoded(few)
            answers.append(answers_to(one.opened, split, open_rows, one.right, size))
        memories.append(_memory(one.opened, examples, size))
    check_unchanged(split)
    times: Sequence[Times | None] = (None, None)
    together = _fit_together([one.opened for one in pair])
    if asked.settings.speed:
        a, b = (partial(one.opened.loaded, one.opened.encoded(few)) for one in pair)
        times = _times((a, b), asked.settings, meter, together)
    return [_Measured(*found) for found in zip(answers, memories, times, strict=True)], together


def _open_rows(a: Side, b: Side) -> list[int] | None:
    """The numbers of the rows that may be answered differently: all but those that both answer right. None where that
    is not known."""
    if a.right is None or b.right is None:
        return None
    return (~(a.right & b.right)).nonzero()[0].tolist()


def _memory(one: Opened, examples: Examples, batch_size: int) -> Memory:
    """The most memory of loading a model and answering one batch.

    It follows on `all_answers`: what the process loads only once, such as code, is not counted.
    """
    rows = list(range(min(batch_size, len(examples.rows))))
    longest = int(examples.rows.answers[rows].max())
    give_memory_back()
    with measuring_memory() as peak, one.loaded(examples) as subject:
        generate(subject.model, questions(subject.model, examples, rows), longest, exactly=True)
        del subject
    return Memory(process=peak.added, gpu=peak.gpu, batch_size=len(rows))


def _times(loading: tuple[Loading, Loading], settings: Evaluation, meter: Meter | None, together: bool) -> list[Times]:
    if not together:
        say(
            "A and B do not fit into half of the free memory together: they are loaded in turn to measure speed"
            + (", and nothing is compiled" if settings.speed in ("compiled", "both") else "")
        )
        return take_turns_apart(loading, settings, meter)
    with loading[0]() as a, loading[1]() as b:
        return in_all_ways([a, b], settings, meter)


def _fit_together(pair: Sequence[Opened]) -> bool:
    """Whether the weights of both models need less than half of the memory that is free on their device."""
    device = Accelerator().device
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory()
    return sum(one.dtype.itemsize * one.anatomy.parameters for one in pair) < _SHARE_OF_MEMORY * free


def _meter() -> Meter | None:
    """What measures the energy of the device that models are on."""
    device = Accelerator().device
    if device.type == "cuda":
        return gpu_meter(gpu_uuids(1))
    return processor_meter() if device.type == "cpu" else None


def _headline(one: Side, found: _Measured, facts: SplitFacts, asked: Asked, meter: Meter | None) -> Compared:
    files, anatomy = choose(one.opened.folder), one.opened.anatomy
    return Compared(
        checkpoint=one.digest,
        address=fit(one.address),
        parameters=anatomy.parameters,
        parameters_by_tower=count_by_tower(anatomy),
        bytes=sum(files.taken[name].stat().st_size for name in files.weights),
        accuracy=float(found.answers.right.mean()),
        accuracy_by_task=facts.by_task(found.answers.right),
        memory=found.memory,
        speed=found.times.speed() if found.times else None,
        energy=_energy(found.times, meter, asked.watts) if found.times else None,
    )


def _energy(times: Times, meter: Meter | None, watts: float | None) -> Energy | None:
    """Measured where a counter moved; else estimated from a stated power; else nothing."""
    joules = [meter.joules(*span) / times.timing.rows for span in times.spans] if meter else []
    if meter and joules and mean(joules) > 0:
        return Energy(joules_per_sample=median(joules), kind="measured", how=meter.how)
    if watts is None:
        return None
    how = f"{watts:g} W as stated, times the seconds of a sample"
    return Energy(joules_per_sample=watts / geometric_mean(times.rates), kind="estimated", how=how)


def _differences(
    a: AllAnswers, b: AllAnswers, same: Marks, facts: SplitFacts
) -> tuple[Difference, dict[str, Difference]]:
    """A and B on all rows, and on those of each task. `same` [rows] are the rows with equal answers."""
    pairs = paired_by_task(a.right, b.right, facts)
    by_task = {task: _difference(pairs[task], int(same[rows].sum())) for task, rows in facts.rows_by_task().items()}
    return _difference(paired(a.right, b.right, facts.owners()), int(same.sum())), by_task


def _difference(one: Paired, same: int) -> Difference:
    return Difference(
        rows=one.rows,
        both=one.both,
        lost=one.lost,
        gained=one.gained,
        neither=one.neither,
        same_answer=same,
        drop=one.drop.value,
        drop_interval=one.drop.interval,
        p=one.p,
    )


def _turns(a: Times | None, b: Times | None, together: bool) -> Turns | None:
    if a is None or b is None:
        return None
    rates = [after / before for before, after in zip(a.rates, b.rates, strict=True)]
    faster = np.array(a.latencies) / np.array(b.latencies)
    low, high = np.quantile(faster, [0.05, 0.95])
    return Turns(
        together=together,
        samples_per_second=Ratio(median=median(rates), low=min(rates), high=max(rates), count=len(rates)),
        latency=Ratio(median=float(np.median(faster)), low=float(low), high=float(high), count=len(faster)),
    )


def _differing(a: AllAnswers, b: AllAnswers, same: Marks, split: Split) -> list[Differing]:
    """The rows with different answers, the worst first; the first of them with their pictures."""
    rows = (~same).nonzero()[0].tolist()
    found = sorted((_row(a, b, number, split.rows[number]) for number in rows), key=badness)
    return [*(_pictured(one, split) for one in found[:WITH_PICTURE]), *found[WITH_PICTURE:]]


def _row(a: AllAnswers, b: AllAnswers, number: int, row: Row) -> Differing:
    kind: Kind = "lost" if a.right[number] else "gained" if b.right[number] else "changed"
    return Differing(
        kind=kind,
        line=row.line,
        file_name=row.picture,
        task=row.task,
        question=row.question,
        wanted=row.answer,
        a=a.said(number),
        b=b.said(number),
    )


def _pictured(row: Differing, split: Split) -> Differing:
    """The row with a small copy of its picture, if it has one."""
    if row.file_name is None:
        return row
    return row.model_copy(update={"picture": thumbnail(split, row.file_name, _SIDE)})
