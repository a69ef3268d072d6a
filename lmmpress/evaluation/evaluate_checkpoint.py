"""Everything measured of one checkpoint on one split."""

from pathlib import Path
from typing import Any

from accelerate import Accelerator

from lmmpress.data import read_split
from lmmpress.evaluation.accuracy import answered_right, by_task
from lmmpress.evaluation.greedy import check_greedy, end_tokens
from lmmpress.evaluation.speed import Subject, measure_speeds, sampled
from lmmpress.lmm.anatomy import count_by_tower
from lmmpress.lmm.checkpoint import load_model, read_checkpoint
from lmmpress.lmm.examples import encode
from lmmpress.lmm.forward import visual_features
from lmmpress.lmm.processor import load_processor, tokenizer_of
from lmmpress.plan import Evaluation


def evaluate_checkpoint(checkpoint: Path, data: Path, split: str, settings: Evaluation) -> dict[str, Any]:
    """Accuracy, overall and by task, samples per second, latency and parameters, in the words of result.json.

    Raises UserError where plain greedy generation would not answer what the model's logits say.
    """
    anatomy = read_checkpoint(checkpoint)
    processor = load_processor(checkpoint)
    tokenizer, ends = tokenizer_of(processor), end_tokens(checkpoint)
    check_greedy(checkpoint, tokenizer)
    rows = read_split(data, split)
    examples = encode(rows, processor, anatomy.config)
    model = load_model(checkpoint).to(Accelerator().device)
    features = visual_features(model, examples, anatomy, settings.batch_size)
    right = answered_right(model, examples, anatomy.projector, features, settings.batch_size, ends)
    asked = encode(sampled(rows, settings), processor, anatomy.config)
    (speed,) = measure_speeds([Subject(model, tokenizer, asked, ends)], settings)
    counts = count_by_tower(anatomy)
    return {
        "rows": len(rows.rows),
        "accuracy": float(right.double().mean()),
        "accuracy_by_task": by_task(rows, right),
        "samples_per_second": speed.samples_per_second,
        "batch_size": speed.batch_size,
        "latency_ms": speed.latency_ms.model_dump(),
        "tokens": speed.tokens,
        "natural_tokens": speed.natural_tokens,
        "parameters": sum(counts.values()),
        "parameters_by_tower": counts,
    }
