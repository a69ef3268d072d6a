"""For ML engineers: compress your own LLaVA or BLIP-2 checkpoint with your own data.

python examples/own_checkpoint.py MODEL DATA OUT

MODEL is a directory as `save_pretrained` writes it, DATA a folder as docs/data.md describes it, OUT a new folder.
"""

import argparse
import sys
from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

import lmmpress
from lmmpress.data import open_picture


def make_plan(model: str, data: str) -> lmmpress.Plan:
    """Half of the language tower's blocks and half of its FFN width go, in two steps each."""
    widths = lmmpress.inspect(model).widths["language"]
    blocks, ffn = widths["block"] // 4, widths["ffn"] // 4
    return lmmpress.as_plan(
        {
            "model": model,
            "data": data,
            "tolerance": {"alpha": 0.02},
            "stages": {"block": {"step": blocks, "max": 2 * blocks}, "ffn": {"step": ffn, "max": 2 * ffn}},
            "distillation": {"epochs": 1, "learning_rate": 3.0e-5, "batch_size": 8},
        }
    )


def answer_with_transformers(model_dir: Path, picture: Path, question: str) -> str:
    """The answer of a checkpoint as any program opens it, without lmmpress."""
    model = AutoModelForImageTextToText.from_pretrained(model_dir, dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(model_dir)
    if model.config.model_type == "llava" and "<image>" not in question:
        question = f"<image>\n{question}"  # LLaVA needs the image's place; lmmpress puts it there by itself
    inputs = processor(images=open_picture(picture), text=question, return_tensors="pt")
    tokens = model.generate(**inputs, max_new_tokens=32, do_sample=False)[:, inputs["input_ids"].shape[1] :]
    return str(processor.batch_decode(tokens, skip_special_tokens=True)[0]).strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("out", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as in `lmmpress run --set`")
    asked = parser.parse_args()

    print(lmmpress.inspect(asked.model))  # in a notebook these objects are tables
    plan = lmmpress.as_plan(make_plan(asked.model, asked.data), asked.set)
    print(lmmpress.plan_sizes(plan))  # from the config alone, in a second: is this the size you want?

    # every row of the data is checked first; `resume` carries on a run that was stopped
    result = lmmpress.compress(plan, asked.out, resume=True, progress=lmmpress.on_terminal())
    print(result)
    for step in result.steps:
        print(f"  {step.stage} {step.index}: {step.decision}, {step.reason}")

    compressed = asked.out / "compressed"
    print(lmmpress.evaluate(compressed, asked.data, split=plan.splits.test))
    answers = lmmpress.predict(compressed, asked.data, split=plan.splits.test, rows=4)
    for answer in answers:
        print(f"  {answer.question!r}: {answer.text!r}, wanted {answer.wanted!r}")

    first = answers[0]
    text = answer_with_transformers(compressed, Path(asked.data, str(first.file_name)), first.question)
    print(f"plain transformers: {text!r}")


if __name__ == "__main__":
    try:
        main()
    except lmmpress.UserError as error:
        sys.exit(f"error: {error}")
