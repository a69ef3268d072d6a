"""Proves on one card, in minutes, what lmmpress takes of it: updates of students, scoring, generation.

    python bench/gpu.py [--blocks 44 15 9] [--minutes 9] [--tiny]

Students of the derived AntGMM with so many blocks learn, as `auto` chooses that they save memory on this card, beside a
training step of the same student that is written plainly with transformers and torch, and beside what `lmmpress plan
--hardware auto` predicts. Scoring is compared with a bare forward and backward pass, generation with plain `generate`.
A part that fails says why, and the others go on; none begins after so many minutes. Weights and rows are random. With
`--tiny` all of it runs on small shapes, also on a CPU, whose memory is not told.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from common import paired, show, spread, working_seconds
from torch.nn.functional import cross_entropy

from lmmpress.distillation.loss import States, loss_in_portions
from lmmpress.distillation.optimizers import optimizer_of
from lmmpress.evaluation.generate import generate
from lmmpress.lmm.anatomy import Anatomy
from lmmpress.lmm.batches import Batch
from lmmpress.lmm.families.registry import family_of
from lmmpress.lmm.forward import answer_logits, head_inputs
from lmmpress.lmm.portions import Portions
from lmmpress.lmm.read_anatomy import anatomy_of
from lmmpress.lmm.recompute import recompute_blocks
from lmmpress.plan import parse_plan
from lmmpress.presets import preset
from lmmpress.pruning.foresight import _Foresight
from lmmpress.pruning.hardware import hardware_of
from lmmpress.pruning.importance import answer_loss, score
from lmmpress.pruning.row_shapes import RoleRows
from lmmpress.result import ROLES
from lmmpress.settings.importance import Importance

TOKENS, ANSWERS = 72, 8
"""Of a row: its tokens, with those of its picture and of its answer."""


class Setting:
    """What is measured: the model's config, the rows of a portion and of an update, and the device."""

    def __init__(self, tiny: bool, rounds: int = 1) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        config = json.loads((Path(preset("paper", with_data=False)["model"]) / "config.json").read_text("utf-8"))
        if tiny:
            _shrink(config)
        self.original: Anatomy = anatomy_of(config)
        self.portion, self.update, self.rounds = (2, 4, rounds) if tiny else (32, 64, rounds)
        self.half = self.device.type == "cuda" and torch.cuda.is_bf16_supported()
        self.dtype = torch.bfloat16 if self.half else torch.float32

    @cached_property
    def hardware(self) -> Any:
        return hardware_of("auto", self.original.axis("language", "io").width)

    def foresight(self, blocks: int, hardware: Any = None) -> Any:
        """That of a plan whose first step leaves so many blocks, by default on what is here."""
        removed = self.original.axis("language", "block").width - blocks
        raw = preset("paper", with_data=False) | {"stages": {"block": {"step": removed, "max": removed}}}
        raw["distillation"] = {"batch_size": self.update, "micro_batch_size": self.portion, "epochs": 1}
        rows = {role: RoleRows(self.update, TOKENS, TOKENS, ANSWERS, 1.0, self.update) for role in ROLES}
        return _Foresight(self.original, parse_plan(raw), hardware or self.hardware, rows)

    def computing(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.half)

    def model(self, anatomy: Anatomy, dtype: torch.dtype) -> torch.nn.Module:
        """A random model on the device."""
        import transformers
        from transformers.initialization import no_init_weights

        typed = transformers.AutoConfig.for_model(**anatomy.config)
        with torch.device(self.device), no_init_weights():
            made = getattr(transformers, family_of(anatomy.config).auto_class).from_config(typed, dtype=dtype)
        made.tie_weights()
        for parameter in made.parameters():
            parameter.data.normal_(0, 0.02)
        model: torch.nn.Module = made.eval()
        return model

    def batch(self, anatomy: Anatomy) -> Batch:
        """A portion of random rows with visual features, whose last tokens are answers."""
        config: Any = anatomy.config
        rows, positions = self.portion, self.portion * ANSWERS
        ids = torch.randint(4, 40, (rows, TOKENS), device=self.device)
        ids[:, : config["num_query_tokens"]] = config["image_token_index"]
        where = torch.zeros_like(ids, dtype=torch.bool)
        where[:, -ANSWERS:] = True
        features = torch.randn(rows, config["num_query_tokens"], config["qformer_config"]["hidden_size"])
        numbers = torch.arange(positions, device=self.device)
        targets = torch.randint(4, 40, (positions,), device=self.device)
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        return Batch(
            list(range(rows)), inputs, where, targets, numbers // ANSWERS, numbers, None, features.to(self.device)
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, nargs="+", default=[44, 15, 9])
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    show(measured(Setting(arguments.tiny, arguments.rounds), arguments.blocks, arguments.minutes))


def measured(setting: Setting, blocks: list[int], minutes: float) -> dict[str, Any]:
    """The numbers of every part, or why there are none."""
    parts: dict[str, Callable[[], dict[str, Any]]] = {}
    for count in blocks:
        parts[f"update, {count} blocks"] = lambda count=count: update(setting, count)  # type: ignore[misc]
    parts["scoring"] = lambda: scoring(setting, blocks[-1])
    parts["generation"] = lambda: generation(setting, blocks[-1])
    ends, found = time.monotonic() + 60 * minutes, dict[str, Any]()
    for name, part in parts.items():
        if time.monotonic() > ends:
            found[name] = {"left_out": f"{minutes:g} minutes are over"}
            continue
        try:
            found[name] = part()
        except Exception as error:  # one part's failure leaves the others' numbers
            found[name] = {"failed": f"{type(error).__name__}: {error}"[:300]}
        if setting.device.type == "cuda":
            torch.cuda.empty_cache()
    device = torch.cuda.get_device_name() if setting.device.type == "cuda" else "cpu"
    return {"device": device, "hardware": setting.hardware.how, "rows_of_an_update": setting.update} | found


def update(setting: Setting, blocks: int) -> dict[str, Any]:
    """Memory and seconds of an update, predicted, of lmmpress, and of a bare training step."""
    foresight = setting.foresight(blocks)
    anatomy = foresight.steps[1].anatomy
    trained = foresight._trained_with(1)
    economy, shadow = trained.way.economy, trained.learned
    hardware, portions = setting.hardware, setting.update // setting.portion
    seconds = portions * hardware.seconds(shadow.portion, setting.half) + hardware.seconds(shadow.update, False)
    found: dict[str, Any] = {"economy": str(economy), "predicted": {"gib": trained.memory / 2**30, "seconds": seconds}}
    learning = torch.bfloat16 if economy.weights == "bfloat16" else torch.float32
    for name, step_of in (("lmmpress", _lmmpress_step), ("bare", _bare_step)):
        try:
            model = setting.model(anatomy, learning)
            if economy.recompute:
                recompute_blocks(model, anatomy)
            found[name] = _timed(setting, step_of(setting, anatomy, model, economy))
        except torch.OutOfMemoryError as error:
            found[name] = {"failed": str(error)[:200]}
        model = None  # type: ignore[assignment]
        if setting.device.type == "cuda":
            torch.cuda.empty_cache()
    ours, bare = found["lmmpress"], found["bare"]
    for what in ("gib", "seconds"):
        own = ours.get(what, {}).get("median") if what == "seconds" else ours.get(what)
        other = bare.get(what, {}).get("median") if what == "seconds" else bare.get(what)
        if own:
            found[f"{what}_predicted_over_measured"] = found["predicted"][what] / own
        if own and other:
            found[f"{what}_over_bare"] = own / other
    return found


def _lmmpress_step(setting: Setting, anatomy: Anatomy, model: torch.nn.Module, economy: Any) -> Callable[[], object]:
    settings = setting.foresight(1).plan.distillation
    trained = _trained(anatomy, model)
    optimizer = optimizer_of(trained, 1e-6, settings.weight_decay, economy)
    head: torch.nn.Module = model.get_output_embeddings()  # type: ignore[operator]
    goal = torch.nn.Linear(head.in_features, head.out_features, bias=False, device=setting.device, dtype=setting.dtype)  # type: ignore[arg-type]
    goal.requires_grad_(False)
    batch = setting.batch(anatomy)
    cached = torch.randn(len(batch.targets), head.in_features, device=setting.device, dtype=setting.dtype)  # type: ignore[call-overload]

    def logits(states: torch.Tensor) -> torch.Tensor:
        with setting.computing():
            made: torch.Tensor = head(states)
        return made

    def step() -> None:
        for _ in range(setting.update // setting.portion):
            with setting.computing():
                own = head_inputs(model, batch, anatomy.projector)
            states = States(own, logits, tuple(head.parameters()))
            loss_in_portions(states, States(cached, goal), batch.targets, settings).backward()
        torch.nn.utils.clip_grad_norm_(trained, settings.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()

    return step


def _bare_step(setting: Setting, anatomy: Anatomy, model: Any, economy: Any) -> Callable[[], object]:
    """The same student, rows and economy; transformers' modules, cross-entropy, and the optimizer that it has."""
    trained = _trained(anatomy, model)
    optimizer = optimizer_of(trained, 1e-6, 0.01, economy)
    batch, language = setting.batch(anatomy), model.language_model
    ids, features = batch.inputs["input_ids"], batch.features
    images = features.shape[1]  # type: ignore[union-attr]

    def step() -> None:
        for _ in range(setting.update // setting.portion):
            with setting.computing():
                seen = model.language_projection(features.to(next(model.parameters()).dtype))  # type: ignore[union-attr]
                words = language.get_input_embeddings()(ids[:, images:])
                states = language.model(inputs_embeds=torch.cat([seen.to(words.dtype), words], 1)).last_hidden_state
                logits = language.lm_head(states[:, -ANSWERS:].flatten(0, 1))
            cross_entropy(logits.float(), batch.targets, reduction="sum").backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def _trained(anatomy: Anatomy, model: torch.nn.Module) -> list[torch.nn.Parameter]:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(anatomy.image_side))
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _timed(setting: Setting, step: Callable[[], object]) -> dict[str, Any]:
    """Seconds of a step after the first, and on a GPU the most memory of its tensors."""
    on_gpu, seconds = setting.device.type == "cuda", []
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    for number in range(1 + setting.rounds):
        begun = time.perf_counter()
        step()
        if on_gpu:
            torch.cuda.synchronize()
        if number:
            seconds.append(time.perf_counter() - begun)
    memory = {"gib": torch.cuda.max_memory_allocated() / 2**30} if on_gpu else {}
    return {"seconds": spread(seconds)} | memory


def scoring(setting: Setting, blocks: int) -> dict[str, Any]:
    """Scoring over a bare forward and backward pass of the same batches."""
    anatomy = setting.foresight(blocks).steps[1].anatomy
    model = setting.model(anatomy, setting.dtype)
    batches = [setting.batch(anatomy) for _ in range(2)]
    portions = Portions([[number] * setting.portion for number in range(2)], lambda rows: batches[rows[0]])

    def loss(batch: Batch) -> torch.Tensor:
        return answer_loss(answer_logits(model, batch, anatomy.projector), batch)

    def bare() -> None:
        for batch in batches:
            loss(batch).backward()
        model.zero_grad(set_to_none=True)

    def scored() -> None:
        score(model, anatomy, portions, 2 * setting.portion, loss, Importance(), torch.Generator())

    _trained(anatomy, model)
    return {"seconds_over_bare": paired(scored, bare, setting.rounds, working_seconds)["ratio"]}


def generation(setting: Setting, blocks: int) -> dict[str, Any]:
    """Plain `generate` over ours, of the language side; and the seconds of a token beside those that reading the
    weights is predicted to take."""
    anatomy = setting.foresight(blocks).steps[1].anatomy
    language: Any = setting.model(anatomy, setting.dtype).language_model
    ids = torch.randint(4, 40, (setting.portion, TOKENS - ANSWERS), device=setting.device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    @torch.no_grad()
    def plain() -> None:
        language.generate(**inputs, do_sample=False, max_new_tokens=ANSWERS, eos_token_id=None)

    def ours() -> None:
        generate(language, inputs, ANSWERS, exactly=True)

    pair = paired(plain, ours, setting.rounds, working_seconds)
    size = sum(one.numel() * one.element_size() for one in language.parameters())
    return {
        "plain_over_ours": pair["ratio"],
        "seconds_of_a_token": pair["second_seconds"]["median"] / ANSWERS,
        "predicted_seconds_of_a_token": size / setting.hardware.traffic,
    }


def _shrink(config: dict[str, Any]) -> None:
    """The same kinds of modules, small."""
    config["text_config"] |= {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "num_hidden_layers": 4,
        "vocab_size": 64,
    }
    small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    config["vision_config"] |= small | {"image_size": 28}
    config["qformer_config"] |= small | {"encoder_hidden_size": 32, "vocab_size": 8}
    config["num_query_tokens"] = 4


if __name__ == "__main__":
    main()
