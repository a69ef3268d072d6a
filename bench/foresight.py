"""Compares what `lmmpress plan --hardware cpu` says of an update with what updates take.

    python bench/foresight.py [--updates 5]

For the built-in sample and four derived shapes: a Llama with states of 512 numbers and 8 blocks, and a BLIP-2 with an
OPT, which the model was made with; and two that it was not: a wide Llama with few blocks, few and long rows, and a
BLIP-2 with a narrow Llama of many blocks and many image tokens.
Each update is one of distillation with caches, on random rows; each shape has a process of its own, in which memory
is the most resident above the start, and seconds are those of the processor. `tensors` is the memory of the same
update where the C library gives back what is let go of, which shows what the library's holes add.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SHAPES = {
    "sample": (64, 24, 6, 1),
    "llama": (16, 96, 8, 2),
    "blip2-opt": (32, 48, 6, 2),
    "wide": (4, 320, 16, 1),
    "pictures": (8, 112, 12, 3),
}
"""Of each shape: the rows of a portion, tokens and answer positions of a row, portions of an update."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=5)
    parser.add_argument("--only", choices=SHAPES)
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(measured(arguments.only, arguments.updates)))
        return
    from common import show

    found = {}
    for shape in SHAPES:
        usual, exact = (_in_process(shape, variables) for variables in ({}, {"MALLOC_MMAP_THRESHOLD_": "131072"}))
        found[shape] = {
            "memory_predicted_over_measured": usual["predicted"] / usual["peak"],
            "tensors_predicted_over_measured": exact["tensors"] / exact["peak"],
            "seconds_predicted_over_measured": usual["ratio"],
            "measured_mb": usual["peak"] / 2**20,
        }
        print(shape, found[shape], file=sys.stderr)
    show(found)


def _in_process(shape: str, variables: dict[str, str]) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", *sys.argv, "--only", shape]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | variables
    printed = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, encoding="utf-8", env=environment)
    found: dict[str, Any] = json.loads(printed.stdout.splitlines()[-1])
    return found


def measured(shape: str, updates: int) -> dict[str, Any]:
    """The most memory and the seconds of an update, and what is predicted of both."""
    import torch
    import transformers
    from common import Peak, spread

    from lmmpress.distillation.loss import States, loss_in_portions
    from lmmpress.lmm.batches import Batch
    from lmmpress.lmm.families.registry import family_of
    from lmmpress.lmm.forward import head_inputs, image_features
    from lmmpress.pruning.foresight import HOLES
    from lmmpress.pruning.hardware import hardware_of
    from lmmpress.pruning.memory import Training, training_bytes
    from lmmpress.pruning.work import Portion, Pupil, learned
    from lmmpress.settings.economy import NO_ECONOMY

    anatomy, rows, tokens, answers, portions, settings = _shape(shape)
    config: Any = anatomy.config
    pupil = Pupil(anatomy, anatomy, anatomy.image_side)
    images = rows if anatomy.projector is not None else 0
    foreseen = learned(pupil, Portion(rows, tokens, rows * answers, images), settings)
    # as lmmpress.pruning.foresight does: what is not weights, gradients and averages comes and goes
    trained = sum(one for name, one in _sizes(anatomy).items() if pupil.trains(name))
    bare = training_bytes(Training(anatomy.parameters, trained, 4, beside=foreseen.beside), NO_ECONOMY)
    kind = getattr(transformers, family_of(config).auto_class)
    typed = transformers.AutoConfig.for_model(**config)
    torch.nn.Linear(64, 64)(torch.randn(8, 64)).sum().backward()  # what torch takes for its computations
    seconds, rates = [], []
    with Peak() as peak:
        model = kind.from_config(typed).eval()
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(pupil.trains(name))
        learns = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(learns, lr=1e-6, fused=True)
        head = model.get_output_embeddings()
        goal = torch.nn.Linear(head.in_features, head.out_features, bias=False).requires_grad_(False)
        ids, features = torch.randint(5, 60, (rows, tokens)), None
        if images:
            size = config["vision_config"]["image_size"]
            ids[:, : config["num_query_tokens"]] = config["image_token_index"]
            with torch.no_grad():
                features = image_features(model, torch.randn(images, 3, size, size), anatomy.projector)
        where = torch.zeros_like(ids, dtype=torch.bool)
        where[:, -answers:] = True
        numbers, given = torch.arange(rows * answers), {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        given["attention_mask"][0, -1] = 0
        targets = torch.randint(5, 60, (rows * answers,))
        batch = Batch(list(range(rows)), given, where, targets, numbers // answers, numbers, None, features)
        for _ in range(updates):
            hardware = hardware_of("cpu", head.in_features)  # measured anew, since other work may run beside
            rates.append(
                portions * hardware.seconds(foreseen.portion, False) + hardware.seconds(foreseen.update, False)
            )
            begun = time.process_time()
            for _ in range(portions):
                own = head_inputs(model, batch, anatomy.projector)
                other = torch.randn(len(targets), head.in_features)
                loss_in_portions(
                    States(own, head, tuple(head.parameters())), States(other, goal), targets, settings
                ).backward()
            torch.nn.utils.clip_grad_norm_(learns, settings.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
            seconds.append(time.process_time() - begun)
    return {
        "peak": peak.bytes,
        "predicted": bare + HOLES * (foreseen.peak - bare),
        "tensors": foreseen.peak,
        "ratio": spread([one / other for one, other in zip(rates, seconds, strict=True)]),
    }


def _sizes(anatomy: Any) -> dict[str, int]:
    from math import prod

    return {name: prod(shape) for name, shape in anatomy.shapes.items()}


def _shape(shape: str) -> tuple[Any, int, int, int, int, Any]:
    """The anatomy; rows of a portion, tokens and answer positions of a row, portions of an update; the settings."""
    sys.path.insert(0, str(ROOT / "tests"))
    from lmmpress.lmm.read_anatomy import anatomy_of
    from lmmpress.settings.distillation import Distillation

    rows, tokens, answers, portions = SHAPES[shape]
    settings = Distillation(batch_size=portions * rows, micro_batch_size=rows)
    return anatomy_of(_CONFIGS[shape]()), rows, tokens, answers, portions, settings


def _sample() -> dict[str, Any]:
    from lmmpress.presets import preset

    config: dict[str, Any] = json.loads(
        (Path(preset("sample", with_data=False)["model"]) / "config.json").read_text("utf-8")
    )
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        part.pop("dtype", None)  # a student's weights are float32
    return config


def _llama(width: int, blocks: int, vocabulary: int) -> dict[str, Any]:
    """With heads of 64 numbers."""
    from support.tiny import text_config

    heads, inner = width // 64, 16 * round(width / 6)
    sizes: dict[str, Any] = {"hidden_size": width, "intermediate_size": inner, "num_hidden_layers": blocks}
    sizes |= {"head_dim": 64, "num_attention_heads": heads, "num_key_value_heads": heads, "tie_word_embeddings": False}
    return text_config("llama", vocabulary, **sizes)


def _blip2(text: dict[str, Any], queries: int) -> dict[str, Any]:
    from support.tiny import blip2_config

    config = blip2_config(text)
    config["vision_config"] |= {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4, "image_size": 64}
    config["qformer_config"] |= {"encoder_hidden_size": 256}
    config["num_query_tokens"] = queries
    return config


def _opt() -> dict[str, Any]:
    from support.tiny import text_config

    sizes = {"hidden_size": 256, "word_embed_proj_dim": 256, "ffn_dim": 1024, "num_hidden_layers": 6}
    return text_config("opt", 4000, **sizes, max_position_embeddings=256)


_CONFIGS: dict[str, Callable[[], dict[str, Any]]] = {
    "sample": _sample,
    "llama": lambda: _llama(512, 8, 8000),
    "blip2-opt": lambda: _blip2(_opt(), 16),
    "wide": lambda: _llama(1024, 3, 4000),
    "pictures": lambda: _blip2(_llama(320, 14, 2000), 64),
}


if __name__ == "__main__":
    main()
