"""Measures generation: what leaving early, a static cache and a compiled step save over plain greedy `generate`.

    python bench/generation.py [--rounds 5] [--rows 256]

Each ratio is the time of the way before over that of the way after, above 1 where the second is faster, on test rows of
the sample, with its model. It computes on the GPU if there is one. Without one the ratios are of processor time, and
the compiled step, which no CPU gets, is left out.

- `leaving`: plain `generate` / rows that have ended leave the batch. Answers are cut off after 32 tokens.
- `sorted and leaving`: plain `generate` on rows in the order of the data / `write_answers`.
- `leaving, uneven answers`: as `leaving`, of a random Llama whose answers end after 1 to 64 tokens.
- `static cache`: plain `generate` / with a static cache, not compiled; every row gets 16 tokens.
- `compiled`: plain `generate` / with a static cache, compiled; every row gets 16 tokens.
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from common import paired, sample_materials, show, working_seconds

from lmmpress.evaluation.generate import compiling, compiling_works, generate, questions, write_answers
from lmmpress.lmm.checkpoint import load_model
from lmmpress.lmm.examples import Tensors

BATCH, LONGEST, EXACT, UNEVEN = 32, 32, 16, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=256)
    arguments = parser.parse_args()
    materials = sample_materials()
    examples = materials.examples("test")
    model = load_model(materials.teacher, materials.dtype).to(materials.accelerator.device)
    count = len(examples.rows)
    rows = [number * count // arguments.rows for number in range(arguments.rows)]
    as_they_are = _batches(rows)
    alike = _batches(sorted(rows, key=examples.rows.prompts.__getitem__, reverse=True))

    def ask(batches: list[list[int]], way: Callable[[Tensors], Any]) -> Callable[[], list[Any]]:
        return lambda: [way(questions(model, examples, batch)) for batch in batches]

    def plain(inputs: Tensors) -> torch.Tensor:
        return _plain(model, inputs, max_new_tokens=LONGEST)

    def exactly(inputs: Tensors, **how: Any) -> torch.Tensor:
        return _plain(model, inputs, max_new_tokens=EXACT, eos_token_id=None, **how)

    def static(inputs: Tensors) -> torch.Tensor:
        return exactly(inputs, cache_implementation="static", disable_compile=True)

    pairs: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "leaving": (ask(alike, plain), ask(alike, lambda inputs: generate(model, inputs, LONGEST))),
        "sorted and leaving": (
            ask(as_they_are, plain),
            lambda: write_answers(model, examples, rows, LONGEST, materials.ends, BATCH),
        ),
        "static cache": (ask(alike, exactly), ask(alike, static)),
    }
    uneven, prompts = _uneven(materials.accelerator.device)
    pairs["leaving, uneven answers"] = (
        lambda: _plain(uneven, prompts, max_new_tokens=UNEVEN),
        lambda: generate(uneven, prompts, UNEVEN),
    )
    answers = write_answers(model, examples, rows, LONGEST, materials.ends, BATCH)
    tokens = sorted(len(answer) for answer in answers.values())
    result: dict[str, Any] = {"rows": len(rows), "batch_size": BATCH}
    result["tokens"] = {"median": tokens[len(tokens) // 2], "most": tokens[-1]}
    for name, pair in pairs.items():
        result[name] = {"ratio": paired(*pair, arguments.rounds, working_seconds)["ratio"]}
    with compiling(model):
        if compiling_works(model, questions(model, examples, alike[0]), EXACT):
            step = ask(alike, lambda inputs: generate(model, inputs, EXACT, exactly=True, compiled=True))
            result["compiled"] = {
                "ratio": paired(ask(alike, exactly), step, arguments.rounds, working_seconds)["ratio"]
            }
    show(result)


def _uneven(device: torch.device) -> tuple[torch.nn.Module, Tensors]:
    """A random Llama of 12 M parameters, of which one token in 20 ends an answer, and prompts for it. Its weights are
    large, else it repeats one token for ever."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            hidden_size=384,
            intermediate_size=1024,
            num_hidden_layers=6,
            num_attention_heads=6,
            vocab_size=2000,
            initializer_range=0.1,
            eos_token_id=list(range(2, 2000, 20)),
            pad_token_id=0,
        )
    ).eval()
    ids = torch.randint(3, 2000, (BATCH, 24))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return model.to(device), {name: value.to(device) for name, value in inputs.items()}


def _batches(rows: list[int]) -> list[list[int]]:
    return [rows[at : at + BATCH] for at in range(0, len(rows), BATCH)]


@torch.no_grad()
def _plain(model: torch.nn.Module, inputs: Tensors, **how: Any) -> torch.Tensor:
    tokens: torch.Tensor = model.generate(**inputs, do_sample=False, **how)  # type: ignore[operator]
    return tokens


if __name__ == "__main__":
    main()
