"""What the steps of a run share: the teacher, the encoded data, and results that are computed from them once."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from accelerate import Accelerator

from lmmpress.data import Split
from lmmpress.data.facts import SplitFacts, facts_of
from lmmpress.engine.part_names import PARTS, Part
from lmmpress.engine.run_splits import RunSplits, split_of
from lmmpress.errors import UserError
from lmmpress.evaluation.greedy import end_tokens
from lmmpress.lmm.anatomy import Anatomy
from lmmpress.lmm.checkpoint import load_model
from lmmpress.lmm.compatibility import FITTED, was_blind
from lmmpress.lmm.examples import Batch, Examples, batches, encode, from_tensors, to_tensors
from lmmpress.lmm.forward import answer_logits, answer_states, visual_features
from lmmpress.lmm.processor import load_processor
from lmmpress.lmm.read_anatomy import anatomy_of, read_config
from lmmpress.plan import Plan, digest_of
from lmmpress.pruning.sizes import frozen_side
from lmmpress.result import Role
from lmmpress.store import Store
from lmmpress.store.records import Subjects

_CACHE_VERSION = 1
_BATCH = 64


def automatic_dtype() -> torch.dtype:
    """The dtype that `dtype: auto` means on this machine: bfloat16 on GPUs that support it, float32 elsewhere."""
    device = Accelerator().device.type
    return torch.bfloat16 if device == "cuda" and torch.cuda.is_bf16_supported() else torch.float32


@dataclass
class Materials:
    """What the steps of a run share. Everything is computed or loaded on first use: a step whose result is in the store
    never encodes data or loads the teacher.

    `original` is the digest of the teacher, which is in the store. `makes` are the parts that this process may compute;
    results of all other parts are only read from the store. `splits` is what the store knows of the run's rows; without
    it, the data is read.
    """

    plan: Plan
    store: Store
    original: str
    makes: frozenset[Part] = PARTS
    splits: RunSplits | None = None

    @cached_property
    def accelerator(self) -> Accelerator:
        return Accelerator()

    @cached_property
    def teacher(self) -> Path:
        """The directory of the teacher, for reading only."""
        return self.store.checkpoint(self.original)

    @cached_property
    def anatomy(self) -> Anatomy:
        """The teacher's anatomy."""
        return self.anatomy_of(self.original)

    def anatomy_of(self, checkpoint: str) -> Anatomy:
        """The anatomy of a checkpoint in the store; its weights are not fetched."""
        if checkpoint not in self._anatomies:
            self._anatomies[checkpoint] = anatomy_of(read_config(self.store.checkpoint(checkpoint, weights=False)))
        return self._anatomies[checkpoint]

    def remember(self, checkpoint: str, anatomy: Anatomy) -> None:
        """Keep the anatomy of a checkpoint that was just written, so that it is not read again."""
        self._anatomies[checkpoint] = anatomy

    def split(self, role: Role) -> Split:
        """The rows of a role. UserError if they are not those that the run began with."""
        split = split_of(self.plan, role)
        if self.splits and split.digest != self.splits.info(role).digest:
            raise UserError(
                f"{self.plan.data}: the rows of split {split.name!r} have changed since this run began; restore them, "
                "or begin a new run with the changed ones"
            )
        return replace(split, digest=self._fitted(split.digest))

    def digest(self, role: Role) -> str:
        """The digest of a role's rows, which is part of the names of results. No row is read if the store knows it."""
        return self._fitted(self.splits.info(role).digest) if self.splits else self.split(role).digest

    def facts(self, role: Role) -> SplitFacts:
        """The facts of a role's rows. No row is read if the store has them."""
        if self.splits and role in self.splits.facts:
            return self.splits.facts[role]
        return facts_of(self.split(role))

    def _fitted(self, digest: str) -> str:
        return digest_of({"data": digest, "fitted": FITTED}) if self._was_blind else digest

    @cached_property
    def _was_blind(self) -> bool:
        return was_blind(self.store.checkpoint(self.original, weights=False), self.anatomy.config)

    @cached_property
    def dtype(self) -> torch.dtype:
        """The dtype of computation."""
        named = {"bfloat16": torch.bfloat16, "float32": torch.float32}
        return named.get(self.plan.dtype) or automatic_dtype()

    def examples(self, role: Role) -> Examples:
        """The encoded rows of a role."""
        if role not in self._examples:
            self._examples[role] = self._find_or_encode(self.split(role))
        return self._examples[role]

    @cached_property
    def _examples(self) -> dict[Role, Examples]:
        return {}

    def _find_or_encode(self, split: Split) -> Examples:
        inputs = {"version": _CACHE_VERSION, "teacher": self.original, "data": split.digest}
        name = f"examples-{digest_of(inputs)}"
        stored = self.store.read_tensors(name)
        if stored is not None:
            return from_tensors(stored, split, lambda: self._encode(split).pixels)
        examples = self._encode(split)
        self.store.write_tensors(name, to_tensors(examples), self._subjects(split))
        return examples

    def _encode(self, split: Split) -> Examples:
        processor = load_processor(self.store.checkpoint(self.original, weights=False))
        return encode(split, processor, self.anatomy.config)

    @cached_property
    def ends(self) -> frozenset[int]:
        """The tokens that end an answer in generation; a cut does not change them."""
        return end_tokens(self.store.checkpoint(self.original, weights=False))

    @cached_property
    def frozen(self) -> tuple[str, ...]:
        """Prefixes of the tensors that no step changes: the image side, unless one of its towers is cut."""
        return frozen_side(self.plan, self.anatomy)

    @cached_property
    def sees_once(self) -> bool:
        """Whether visual features are cached: no step changes them, and the plan allows caches."""
        return self.plan.distillation.caches and bool(self.frozen)

    @cached_property
    def _anatomies(self) -> dict[str, Anatomy]:
        return {}

    @cached_property
    def _features(self) -> dict[str, torch.Tensor | None]:
        return {}

    def features(self, role: Role) -> torch.Tensor | None:
        """The teacher's visual features [images, tokens, width] of a role's images; None if they are not cached."""
        if not self.sees_once:
            return None
        examples = self.examples(role)
        if examples.split.digest not in self._features:
            name = self._cache_name("features", examples)
            tensors = self.store.read_tensors(name)
            if tensors is None:
                features = visual_features(self.teacher_model, examples, self.anatomy, _BATCH)
                tensors = {} if features is None else {"features": features}
                self.store.write_tensors(name, tensors, self._subjects(examples.split))
            self._features[examples.split.digest] = tensors.get("features")
        return self._features[examples.split.digest]

    @cached_property
    def teacher_model(self) -> torch.nn.Module:
        return load_model(self.teacher, self.dtype).requires_grad_(False).to(self.accelerator.device)

    @cached_property
    def teacher_states(self) -> torch.Tensor:
        """The inputs of the teacher's head at every answer position of the distillation rows [positions, width]."""
        examples = self.examples("distill")
        name = self._cache_name("states", examples)
        tensors = self.store.read_tensors(name)
        if tensors is None:
            order = batches(examples, _BATCH)
            projector, features = self.anatomy.projector, self.features("distill")
            tensors = {"states": answer_states(self.teacher_model, examples, projector, features, order)}
            self.store.write_tensors(name, tensors, self._subjects(examples.split))
        return tensors["states"]

    def teacher_logits(self, batch: Batch) -> torch.Tensor:
        """The teacher's logits [positions, vocabulary] of a distillation batch, from cached states if they are used."""
        with torch.no_grad():
            if self.plan.distillation.caches:
                head = self.teacher_model.get_output_embeddings()  # type: ignore[operator]
                states = self.teacher_states[batch.number.cpu()].to(self.accelerator.device, self.dtype)
                logits: torch.Tensor = head(states)
                return logits
            return answer_logits(self.teacher_model, batch, self.examples("distill"), self.anatomy.projector, None)

    def logits(self, model: torch.nn.Module, batch: Batch, role: Role) -> torch.Tensor:
        """A model's logits [positions, vocabulary] at a batch's answer positions, with cached visual features if they
        are used."""
        return answer_logits(model, batch, self.examples(role), self.anatomy.projector, self.features(role))

    def student_logits(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """The logits [positions, vocabulary] of a student with float32 weights for a distillation batch, computed in
        the plan's dtype."""
        features = self.features("distill")  # computed outside autocast, which would change them
        with torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=self.dtype is torch.bfloat16):
            return answer_logits(model, batch, self.examples("distill"), self.anatomy.projector, features)

    def _subjects(self, split: Split) -> Subjects:
        """The subjects of a result that depends on the teacher and a split."""
        return Subjects(checkpoints=[self.original], data=[split.digest])

    def _cache_name(self, kind: str, examples: Examples) -> str:
        inputs = {
            "version": _CACHE_VERSION,
            "teacher": self.original,
            "data": examples.split.digest,
            "dtype": str(self.dtype),
            "device": self.accelerator.device.type,
        }
        return f"{kind}-{digest_of(inputs)}"
