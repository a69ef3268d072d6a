"""Compares the plan that `lmmpress advise` suggests with one made by hand, by runs of both: on the sample, and on
models with other language towers.

    python bench/advise.py [--folder DIR] [--models sample opt qwen3] [--set KEY=VALUE ...]

The other models have the sample's vision tower and Q-Former, and a language tower of another family with six blocks,
which learns the sample's questions here. Their plan by hand takes the shares of the sample's plan. Accuracy is that on
the gate's split, of the last model that each run kept; the test split is not read. What is in DIR already is not made
again.
"""

import argparse
import json
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from common import show
from numpy.typing import NDArray
from transformers import Blip2Config, Blip2ForConditionalGeneration, Blip2Processor

from lmmpress import api
from lmmpress.engine.materials import Materials
from lmmpress.engine.parts.evaluate import evaluate
from lmmpress.evaluation.gate import paired_drop
from lmmpress.plan import Plan, parse_plan, read_plan
from lmmpress.presets import preset
from lmmpress.result import Result
from lmmpress.sample import MODEL
from lmmpress.store import open_store

ROOT = Path(__file__).resolve().parent.parent
BLOCKS, WIDTH = 6, 192
IMAGES, STEPS, RATE = 6000, 1000, 1e-3
"""What a language tower learns: pictures, updates, learning rate."""
TOWERS: dict[str, dict[str, Any]] = {
    "opt": {"ffn_dim": 4 * WIDTH, "word_embed_proj_dim": WIDTH, "num_attention_heads": 12, "dropout": 0.0},
    "qwen3": {"intermediate_size": 512, "num_attention_heads": 12, "num_key_value_heads": 6, "head_dim": 16},
}
"""What each family has that others have not; learned positions and ReLU, or grouped queries and norms of heads."""
BY_HAND = {
    "block": {"step": "50%", "max": "67%"},
    "ffn": {"step": "31.25%", "max": "62.5%"},
    "attention": {"step": "25%", "max": "50%"},
    "io": {"step": "12.5%", "max": "25%"},
}
"""The sample's amounts as shares. Of six blocks two are left, as in the sample."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=None, help="where runs are kept; a new folder by default")
    parser.add_argument("--models", nargs="+", default=["sample", *TOWERS], choices=["sample", *TOWERS])
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="lmmpress-advise-"))
    show({name: compared(name, folder / name, tuple(arguments.overrides)) for name in arguments.models})


def compared(name: str, folder: Path, overrides: tuple[str, ...]) -> dict[str, Any]:
    """The advice for a model, and what the runs of the suggested plan and of the one by hand came to."""
    own = parse_plan(of_model(name, folder), ("splits.test=gate", *overrides))
    advice = noted(folder / "advice.json", lambda: api.advise(own, folder / "suggested.yaml").as_dict())
    suggested = noted(folder / "suggested.json", lambda: ran(folder / "suggested.yaml", folder / "suggested"))
    by_hand = noted(folder / "own.json", lambda: ran(own, folder / "own"))
    lost = noted(folder / "lost.json", lambda: more_lost(folder / "own", folder / "suggested"))
    return {"advice": advice, "suggested": suggested, "own": by_hand, "more_lost_than_own": lost}


def of_model(name: str, folder: Path) -> dict[str, Any]:
    """The raw plan by hand for a model, which is trained in the folder if it is not the sample's."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = preset("sample")
    return raw if name == "sample" else raw | {"model": str(trained(name, folder)), "stages": BY_HAND}


def noted(path: Path, make: Any) -> Any:
    """What was found before, or is found now."""
    if not path.exists():
        with redirect_stdout(sys.stderr):  # stdout has the results alone
            begun = time.process_time()
            found = make()
            found["processor_seconds"] = time.process_time() - begun
        path.write_text(json.dumps(found), "utf-8")
    return json.loads(path.read_text("utf-8"))


def ran(plan: Any, out: Path) -> dict[str, Any]:
    """What a run came to on the gate's split, without the test split's numbers."""
    result: Result = api.compress(
        read_plan(plan) if isinstance(plan, Path) else plan, out, speed=False, recorder=None, resume=out.exists()
    )
    kept = [step for step in result.steps if step.decision != "rolled back"]
    return {
        "gate_accuracy": kept[-1].accuracy if kept else None,
        "parameters": kept[-1].parameters if kept else None,
        "steps": [f"{step.title} {step.decision}" for step in result.steps],
    }


def more_lost(first_run: Path, second_run: Path) -> dict[str, Any]:
    """What the second run's model loses on the gate's rows beyond that of the first, with its 95 % interval of the same
    rows."""
    answers = [answers_of(out) for out in (first_run, second_run)]
    (first, owners), (second, _) = answers
    drop = paired_drop(first, second, owners, 0.95)
    return {"value": drop.value, "interval": [drop.interval.low, drop.interval.high]}


def answers_of(out: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """Which of the gate's rows the model of a run answers right, and the picture of each row."""
    result = Result.model_validate_json((out / "result.json").read_text("utf-8"))
    plan = Plan.model_validate_json((out / "plan.json").read_text("utf-8"))
    store = open_store(plan.store or str(out / "store"))
    materials = Materials(plan, store, result.original.checkpoint, frozenset())
    found = evaluate(materials, result.compressed.checkpoint, "test")  # the gate's rows: splits.test=gate
    return found.values, materials.facts("test").owners()


def trained(name: str, folder: Path) -> Path:
    """A checkpoint of the sample's model whose language tower is of another family; trained once."""
    target = folder / "model"
    if target.exists():
        return target
    sys.path.insert(0, str(ROOT))
    from lmmpress.sample.dataset import in_memory
    from tools.sample_model.train import make_log, save, train_language

    processor = Blip2Processor.from_pretrained(MODEL)
    with redirect_stdout(sys.stderr):
        torch.manual_seed(0)
        model = with_tower(name)
        log = make_log(folder / "train_log.jsonl")
        train, check = in_memory("train", IMAGES), in_memory("check", 200)
        train_language(model, processor.tokenizer, train, check, log, STEPS, RATE)
        save(model, processor, target)
    return target


def with_tower(name: str) -> Blip2ForConditionalGeneration:
    """The sample's model with an untrained language tower of another family."""
    source = Blip2ForConditionalGeneration.from_pretrained(MODEL, dtype=torch.float32)
    raw = source.config.to_dict()
    text = {key: raw["text_config"][key] for key in ("vocab_size", "pad_token_id", "eos_token_id", "bos_token_id")}
    shape = {"hidden_size": WIDTH, "num_hidden_layers": BLOCKS, "max_position_embeddings": 128}
    start = {"tie_word_embeddings": True, "initializer_range": 0.07, "init_std": 0.07}
    raw["text_config"] = {"model_type": name} | text | shape | start | TOWERS[name]
    model = Blip2ForConditionalGeneration(Blip2Config.from_dict(raw))
    of_images = {
        key: value
        for key, value in source.state_dict().items()
        if key.startswith(("vision_model.", "qformer.", "query_tokens"))
    }
    model.load_state_dict(of_images, strict=False)
    model.generation_config = source.generation_config
    model.language_model.generation_config = source.language_model.generation_config
    return model


if __name__ == "__main__":
    main()
