"""The least memory that each part of a step needs, from the sizes of the models alone.

Rows come on top: pictures, visual features, activations and logits grow with the data and the batch sizes, not with the
parameters. Neither torch nor transformers is imported here. bench/memory.py compares these formulas with what parts
take.
"""

from dataclasses import dataclass
from math import ceil

from lmmpress.plan import Plan
from lmmpress.settings.economy import Economy
from lmmpress.settings.importance import Importance

_MIB = 1 << 20
LIGHT = 72 * _MIB
"""A process that reads the state of a run, without torch: due, steps, gate."""

LOADING = 150 * _MIB
"""What loading a model adds to a process: transformers imports torchao then, which the images have."""

COPYING = 400 * _MIB + LOADING
"""A process that has imported torch and transformers, and loads what it has written."""

BASE = 520 * _MIB
"""A process with torch and transformers, MLflow's client, rows and what torch keeps for its computations."""

LOADED = BASE + LOADING
"""The same, which has loaded a model."""

BASE_CUDA = 2048 * _MIB
"""The same with CUDA's libraries and their buffers in this machine's memory."""

CONTEXT = 512 * _MIB
"""What CUDA takes of a GPU before the first tensor."""

_SINGLE = 4  # bytes of a number in float32
_EIGHT_BITS = 1 + _SINGLE / 256  # bytes of a number in an average of 8 bits, with its share of a scale


@dataclass(frozen=True)
class Weights:
    """How many parameters are held: all of the `original`; of what a step leaves at most, all (`cut`) and those that
    distillation trains (`trained`); those whose importance is summed (`scored`), and those of them that a gradient
    reaches (`reached`): none reaches an image side that is not run; and the `largest` tensor's. `moments` are the
    numbers that refitting holds of the layer that needs the most; `head` are the parameters of the original's head,
    `outside` those outside of blocks, `block` those of its largest block."""

    original: int
    cut: int
    trained: int
    scored: int
    reached: int
    largest: int
    moments: int = 0
    head: int = 0
    outside: int = 0
    block: int = 0


@dataclass(frozen=True)
class Training:
    """What decides how much memory a training takes: the numbers of parameters that the student holds, and of those
    that are trained; the bytes of a number of computation (`width`); and into how many `shares` processes divide the
    student, with the numbers of parameters `outside` of its blocks and of its largest `block`.

    In bytes: what lies `beside` the student, as the teacher's head; and what a forward pass keeps for its backward
    pass, as it is (`kept`), and with blocks that are computed again (`kept_anew`).
    """

    held: int
    trained: int
    width: int
    beside: int = 0
    kept: int = 0
    kept_anew: int = 0
    shares: int = 1
    outside: int = 0
    block: int = 0


@dataclass(frozen=True)
class Need:
    """The least memory of a part in bytes: of its processes on a machine without a GPU, of its processes on one with
    GPUs, and of each GPU. The last two are equal to the first and 0 for parts that use no GPU."""

    part: str
    process: int
    process_with_gpu: int
    gpu: int


def needs_without_model() -> tuple[Need, ...]:
    """What the parts need before they load a model: all that is known if the model is out of reach."""
    light = (_without_gpu(part, LIGHT) for part in ("steps", "due", "gate"))
    whole = (_without_gpu("prepare", BASE), _without_gpu("prune", COPYING), _without_gpu("publish", BASE))
    computing = (
        Need(part, BASE, BASE_CUDA, CONTEXT) for part in ("importance", "distill", "evaluate", "stage", "compare")
    )
    return (*light, *whole, *computing)


def needs_of(weights: Weights, plan: Plan, sees_once: bool, processes: int | None = None) -> tuple[Need, ...]:
    """What each part needs at least, in the order of a pipeline.

    `sees_once`: visual features are computed once per run, so a part that finds none computes them with the teacher.
    `processes` distil together on one machine, each with a GPU if there are any; as many as the plan says by default.
    """
    evaluate = _in_processes(_evaluate(weights, plan), plan.evaluation.processes)
    distill = _distill(weights, plan, processes or plan.distillation.processes)
    # one process makes all parts of a stage; while it distils, the C library keeps about a model's worth of the small
    # tensors that the parts before have freed, as the teacher
    importance = _in_processes(_importance(weights, plan, teacher=True), plan.importance.processes)
    most = (importance, distill, evaluate)
    stage = Need(
        "stage",
        max(*(need.process for need in most), distill.process + widths_of(plan)[0] * weights.original),
        max(need.process_with_gpu for need in most),
        max(need.gpu for need in most),
    )
    # weights are read through a map of their file and written tensor by tensor: one while the next is made
    two = 2 * _SINGLE * weights.largest
    return (
        _without_gpu("prepare", BASE + two),
        *(_without_gpu(part, LIGHT) for part in ("steps", "due")),
        _in_processes(
            _importance(weights, plan, teacher=sees_once or plan.labels == "teacher"), plan.importance.processes
        ),
        _without_gpu("prune", COPYING + two),
        distill,
        evaluate,
        _without_gpu("gate", LIGHT),
        stage,
        _without_gpu("publish", BASE + two),
        *((_compare(weights, plan),) if plan.compare else ()),
    )


def _importance(weights: Weights, plan: Plan, teacher: bool) -> Need:
    """The model with the gradients that are kept, and the teacher where it computes the visual features."""
    models = weights.original * (2 if teacher else 1)  # the first step scores a second copy of the original
    numbers = models + _kept_gradients(weights, plan.importance)
    here, there = widths_of(plan)
    passing = there * weights.original  # models are loaded one after the other, and then moved to the GPU
    return Need("importance", LOADED + here * numbers, BASE_CUDA + passing, CONTEXT + there * numbers)


def _in_processes(need: Need, processes: int) -> Need:
    """What a part needs that several processes on one machine share, each with a GPU if there are any; beside them is
    the one that has started them."""
    if processes == 1:
        return need
    together, with_gpus = BASE + processes * need.process, BASE_CUDA + processes * need.process_with_gpu
    return Need(need.part, together, with_gpus, CONTEXT + need.gpu)


def _kept_gradients(weights: Weights, settings: Importance) -> int:
    """How many numbers of gradients scoring keeps."""
    if settings.criterion != "taylor" or settings.accumulation != "dataset":
        return 0  # there are none, or each is freed as soon as its layer has it
    share = min(-(-weights.scored // settings.passes), weights.reached)  # of the parameters of a pass
    return share * (2 if settings.reliability else 1)  # one for each half of the rows, else one for all


def _evaluate(weights: Weights, plan: Plan) -> Need:
    """Two models: the last measurement has original and result at once."""
    numbers = weights.original + weights.cut
    here, there = widths_of(plan)
    passing = there * weights.original
    return Need("evaluate", LOADED + here * numbers, BASE_CUDA + passing, CONTEXT + there * numbers)


def _compare(weights: Weights, plan: Plan) -> Need:
    """One model: where two do not fit into memory, they take turns there too."""
    here, there = widths_of(plan)
    passing = there * weights.original
    return Need("compare", LOADED + here * weights.original, BASE_CUDA + passing, CONTEXT + there * weights.original)


def _distill(weights: Weights, plan: Plan, processes: int) -> Need:
    """A student that learns, with what the plan names of its economies, and none that the plan does not name; and the
    teacher: all of it before that, where caches hold its states, and its head then; without caches all of it."""
    settings = plan.distillation
    learns = settings.epochs or settings.last_epochs
    if not learns and not settings.refit_rows:
        return Need("distill", BASE, BASE_CUDA, CONTEXT)
    here, there = widths_of(plan)
    # what is written is loaded again and compared; gradients and averages are gone by then
    compared = 2 * _SINGLE * weights.cut
    stays = 0 if settings.caches else 1
    process = LOADED + max(_learned(weights, here, plan, processes), stays * here * weights.original + compared)
    gpu = CONTEXT + _learned(weights, there, plan, processes)
    passing = max(there * weights.original, compared)
    if processes == 1:
        return Need("distill", process, BASE_CUDA + passing, gpu)
    # beside the processes that train: the one that has started them, which has let go of its teacher
    moving = max(there * weights.original, _SINGLE * weights.cut)
    together = BASE_CUDA * (processes + 1) + max(processes * moving, passing)
    return Need("distill", BASE + processes * process, together, CONTEXT + gpu)


def _learned(weights: Weights, width: int, plan: Plan, processes: int) -> int:
    """The most bytes of a step's models: of the teacher, of a student that is refitted, and of one that learns, which
    take turns where the teacher's states are cached. Computation has numbers of `width` bytes."""
    settings, teacher = plan.distillation, width * weights.original
    stays, head = (0, width * weights.head) if settings.caches else (teacher, teacher)
    refitted = stays + _refitted(weights, width, plan)
    if not settings.epochs and not settings.last_epochs:
        return refitted
    shares = processes if settings.sharding == "full" else 1
    whole = {"outside": weights.outside, "block": weights.block}
    training = Training(weights.cut, weights.trained, width, head, shares=shares, **whole)
    return max(teacher, refitted, training_bytes(training, settings.economy()))


def _refitted(weights: Weights, width: int, plan: Plan) -> int:
    """The bytes of a student that is refitted before it learns, with the model that it was cut from."""
    if not plan.distillation.refit_rows:
        return 0
    return _SINGLE * weights.cut + width * weights.original + _SINGLE * weights.moments


def training_bytes(training: Training, economy: Economy) -> int:
    """The bytes that a training takes: weights, gradients and averages of the student, what it keeps for the backward
    pass, and what lies beside it."""
    width = _SINGLE if economy.weights == "float32" else _SINGLE // 2
    each = width + bytes_of_averages(economy)
    if training.shares == 1 and training.width < width:
        each += training.width  # autocast keeps a copy of each weight until the backward pass has used it
    kept = training.kept_anew if economy.recompute else training.kept
    if training.shares > 1:
        kept = _with_whole(training, kept)
    student = width * training.held + ceil(each * training.trained)
    return ceil(student / training.shares) + training.beside + kept


def _with_whole(training: Training, kept: int) -> int:
    """What a process that has a share of each tensor holds beside it, at the most of three moments.

    When the forward pass ends, weights outside of blocks are whole, and those of two blocks, as one of them is fetched
    ahead. In the backward pass what was kept gives way to gradients: of what is outside, and of a block, while those of
    the block after it travel, as a copy in float32. In the end those from outside travel.
    """
    width, outside, block = training.width, training.outside, training.block
    return max(
        width * (outside + 2 * block) + kept,
        2 * width * outside + (3 * width + _SINGLE) * block,
        (width + _SINGLE) * outside,
    )


def bytes_of_averages(economy: Economy) -> float:
    """The bytes of an optimizer's two averages for each number that is trained."""
    return 2 * (_SINGLE if economy.optimizer == "adamw" else _EIGHT_BITS)


def widths_of(plan: Plan) -> tuple[int, int]:
    """The bytes of a number of computation, without a GPU and on one. `auto` is float32 and bfloat16."""
    half = _SINGLE // 2
    return {"auto": (_SINGLE, half), "float32": (_SINGLE, _SINGLE), "bfloat16": (half, half)}[plan.dtype]


def _without_gpu(part: str, process: int) -> Need:
    return Need(part, process, process, 0)
