"""Measures the documented properties of the sample: `python -m tools.sample_model.check [CHECKPOINT] [--hard]`.

Prints parameters, the language tower's share of parameters and time, accuracy on a split by task (with teacher forcing
and with `generate`), and the accuracy if only the first language blocks are kept.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from torch import nn
from transformers import AutoProcessor, Blip2ForConditionalGeneration

from lmmpress.sample import HARD_MODEL, MODEL, dataset, hard
from lmmpress.sample.copywriting import TASKS
from tools.sample_model.train import accuracies, all_query_outputs, encode


def language_blocks(model: Blip2ForConditionalGeneration) -> list[nn.Module]:
    """The language tower: its blocks and final norm, without embeddings and head."""
    tower = model.language_model.model
    return [tower.layers, tower.norm]


def parameters(model: Blip2ForConditionalGeneration) -> tuple[int, int]:
    """(all parameters, those of the language tower)."""
    tower = sum(p.numel() for part in language_blocks(model) for p in part.parameters())
    return sum(p.numel() for p in model.parameters()), tower


def language_share(model: Blip2ForConditionalGeneration, call: Callable[[], object], repeats: int = 5) -> float:
    """The language model's share of a call's wall time; the median of `repeats` calls.

    All time outside vision tower, Q-Former and projection counts for the language model, including the lookup of text
    embeddings and the loop of `generate`.
    """
    image_side = [model.vision_model, model.qformer, model.language_projection]
    spent = 0.0
    started: list[float] = []

    def begin(*_: object) -> None:
        started.append(time.perf_counter())

    def end(*_: object) -> None:
        nonlocal spent
        spent += time.perf_counter() - started.pop()

    hooks = [h for m in image_side for h in (m.register_forward_pre_hook(begin), m.register_forward_hook(end))]
    shares = []
    for repeat in range(repeats + 1):
        spent, start = 0.0, time.perf_counter()
        with torch.no_grad():
            call()
        if repeat:  # the first call warms up
            shares.append(1 - spent / (time.perf_counter() - start))
    for hook in hooks:
        hook.remove()
    return sorted(shares)[len(shares) // 2]


def keep_first(model: Blip2ForConditionalGeneration, blocks: int) -> None:
    """Keep only the first blocks of the language tower, in place and without distillation."""
    tower = model.language_model.model
    tower.layers = nn.ModuleList(tower.layers[:blocks])
    model.config.text_config.num_hidden_layers = blocks


def generated_accuracy(
    model: Blip2ForConditionalGeneration,
    processor: AutoProcessor,
    questions: list[str],
    images: list[Image.Image],
    answers: list[str],
    batch_size: int = 32,
) -> float:
    """The share of rows whose greedily generated text is the answer, with plain transformers calls."""
    right = 0
    for i in range(0, len(questions), batch_size):
        part = slice(i, i + batch_size)
        inputs = processor(images=images[part], text=questions[part], padding=True, return_tensors="pt")
        tokens = model.generate(**inputs, max_new_tokens=model.generation_config.max_new_tokens)
        # transformers returns the prompt's tokens before the new ones
        texts = processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        right += sum(text == answer for text, answer in zip(texts, answers[part], strict=True))
    return right / len(questions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, nargs="?", help="by default the sample's own model")
    parser.add_argument("--hard", action="store_true", help="the harder sample")
    parser.add_argument("--split", default="test", choices=["gate", "test"], help="choose nothing on the test split")
    parser.add_argument("--generate-images", type=int, default=100, help="images answered through generate")
    args = parser.parse_args()
    tasks, make, own = (hard.TASKS, hard.make, HARD_MODEL) if args.hard else (TASKS, dataset.make, MODEL)
    checkpoint = args.checkpoint or own

    model = Blip2ForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(checkpoint)
    total, tower = parameters(model)
    print(f"parameters {total:,}, language tower {tower:,} ({tower / total:.1%})")

    pixels, _, rows_by_image = dataset.in_memory(args.split, dataset.SIZES[args.split], make=make)
    rows = [row for of_image in rows_by_image for row in of_image]
    encoded = encode(processor.tokenizer, rows)
    queries = all_query_outputs(model, pixels)
    prompts = [len(prompt) for prompt, _ in encoded]
    answers = [len(answer) - 1 for _, answer in encoded]
    print(f"prompt tokens with image: mean {sum(prompts) / len(prompts):.1f}, max {max(prompts)}")
    print(f"answer tokens without end: {', '.join(f'{n}: {answers.count(n)}' for n in sorted(set(answers)))}")

    images = [Image.fromarray(pixels[i // len(tasks)]) for i in range(len(tasks) * args.generate_images)]
    some = rows[: len(images)]
    prompts_only = [row.question for row in some[:32]]
    answered = [row.question + row.answer for row in some[:32]]
    open_end = processor(images=images[:32], text=prompts_only, padding=True, return_tensors="pt")
    forced_end = processor(images=images[:32], text=answered, padding=True, return_tensors="pt")
    print(f"language share of time, generate:       {language_share(model, lambda: model.generate(**open_end)):.1%}")
    print(f"language share of time, teacher-forced: {language_share(model, lambda: model(**forced_end)):.1%}")

    pad = processor.tokenizer.pad_token_id
    print(f"{args.split} accuracy", accuracies(model, encoded, queries, pad, tasks))
    share = generated_accuracy(model, processor, [r.question for r in some], images, [r.answer for r in some])
    forced = accuracies(model, encoded[: len(some)], queries, pad, tasks)["all"]
    print(f"first {len(some)} rows: through generate {share:.4f}, forced {forced:.4f}")
    every = model.config.text_config.num_hidden_layers
    for blocks in range(every - 1, 0, -1) if args.hard else (11, 10, 8, 6, 4, 2):
        keep_first(model, blocks)
        print(f"first {blocks} blocks", accuracies(model, encoded, queries, pad, tasks))


if __name__ == "__main__":
    main()
