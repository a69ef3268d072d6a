"""What the steps of a run share: the teacher, the encoded data, and results that are computed from them once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import torch
from accelerate import Accelerator
from accelerate.utils import release_memory

from lmmpress.data import Split
from lmmpress.data.facts import SplitFacts, facts_of
from lmmpress.distillation.loss import States
from lmmpress.engine.caches import Caches, Kept, Kind, Wanted, dtype_named
from lmmpress.engine.meeting import Meeting
from lmmpress.engine.misfits import naming_the_way_out
from lmmpress.engine.part_names import PARTS, Part
from lmmpress.engine.run_splits import RunSplits, split_of, turns_of
from lmmpress.errors import UserError
from lmmpress.evaluation.generate import longest_answer, write_answers
from lmmpress.evaluation.greedy import end_tokens
from lmmpress.lmm.anatomy import Anatomy
from lmmpress.lmm.batches import Batch, grouped, make_batch
from lmmpress.lmm.checkpoint import digest_of_tensors, load_model
from lmmpress.lmm.compatibility import FITTED, was_blind
from lmmpress.lmm.examples import Examples, encode, read_examples, with_rows
from lmmpress.lmm.forward import answer_logits, answer_states, head_inputs, visual_features
from lmmpress.lmm.heads import load_head
from lmmpress.lmm.processor import load_processor
from lmmpress.lmm.ragged_rows import NewFile, RaggedRows
from lmmpress.lmm.read_anatomy import anatomy_of, read_config
from lmmpress.lmm.row_reading import reading_of
from lmmpress.lmm.tensor_rows import TensorRows
from lmmpress.plan import Plan, digest_of
from lmmpress.progress import say_once
from lmmpress.pruning.sizes import frozen_side
from lmmpress.result import Role
from lmmpress.settings.caches import CacheSettings
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
    results of all other parts are only read from the store, and without any so are caches. `splits` is what the store
    knows of the run's rows; without it, the data is read. `meeting` is that of this machine with others, if several
    make a part together. `elsewhere` has other machines make parts, by the name of their results.
    """

    plan: Plan
    store: Store
    original: str
    makes: frozenset[Part] = PARTS
    splits: RunSplits | None = None
    meeting: Meeting | None = None
    elsewhere: Mapping[Part, Callable[[str], None]] = field(default_factory=dict)

    @cached_property
    def spent(self) -> dict[Part, float]:
        """The seconds of the parts that this process has computed, and not found in the store."""
        return {}

    @cached_property
    def lowered(self) -> dict[str, int]:
        """How many rows go through a model at once, by what is done with them, where the memory was too small for as
        many as the plan asks for."""
        return {}

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
        if self.splits and self.splits.info(role).digest == split.old_digest:
            split = replace(split, digest=split.old_digest)
        if self.splits and split.digest != self.splits.info(role).digest:
            raise UserError(
                f"{self.plan.data}: the rows of split {split.name!r} have changed since this run began; restore them, "
                "or begin a new run with the changed ones"
            )
        reading = self.splits.readings.get(role, {}) if self.splits else self._reading(split, role)
        return replace(split, digest=self._fitted(split.digest, reading))

    def digest(self, role: Role) -> str:
        """The digest of a role's rows, which is part of the names of results. No row is read if the store knows it."""
        if self.splits is None:
            return self.split(role).digest
        return self._fitted(self.splits.info(role).digest, self.splits.readings.get(role, {}))

    def facts(self, role: Role) -> SplitFacts:
        """The facts of a role's rows. No row is read if the store has them."""
        if self.splits and role in self.splits.facts:
            return self.splits.facts[role]
        return facts_of(self.split(role))

    def _reading(self, split: Split, role: Role) -> dict[str, Any]:
        return reading_of(split, turns_of(self.plan, role), self.plan.template)

    def _fitted(self, digest: str, reading: dict[str, Any]) -> str:
        """The digest of rows, changed where a model gets other inputs from them than from plain rows of one turn."""
        changed = reading | ({"fitted": FITTED} if self._was_blind else {})
        return digest_of({"data": digest} | changed) if changed else digest

    @cached_property
    def _was_blind(self) -> bool:
        return was_blind(self.store.checkpoint(self.original, weights=False), self.anatomy.config)

    @cached_property
    def dtype(self) -> torch.dtype:
        """The dtype of computation."""
        named = {"bfloat16": torch.bfloat16, "float32": torch.float32}
        return named.get(self.plan.dtype) or automatic_dtype()

    def examples(self, role: Role) -> Examples:
        """The encoded rows of a role, with the answers that the data gives. With the plan's `turns: all`, every answer
        of rows to learn from counts."""
        if role not in self._examples:
            self._examples[role] = self._find_or_encode(self.split(role), role)
        return self._examples[role]

    @cached_property
    def _examples(self) -> dict[Role, Examples]:
        return {}

    def own_answers(self, role: Role) -> Examples:
        """The encoded rows of a role with the answers that the teacher itself gives to them. It writes them once; one
        that does not end is cut off, and has no end token."""
        if role not in self._own_answers:
            self._own_answers[role] = self._find_or_write(role, self.examples(role))
        return self._own_answers[role]

    def answered(self, role: Role) -> Examples:
        """The encoded rows of a role; those to which the data gives no answer have the teacher's."""
        examples = self.examples(role)
        if examples.rows.answers.all():
            return examples
        own = self.own_answers(role)
        rows = (row if row.answer else other for row, other in zip(examples.rows, own.rows, strict=True))
        return with_rows(examples, rows, digest_of({"open": own.split.digest}))

    def lessons(self, role: Role) -> Examples:
        """The encoded rows of a role with the answers to learn."""
        return self.own_answers(role) if self.plan.labels == "teacher" else self.examples(role)

    @property
    def taught(self) -> dict[str, Any]:
        """What the results of parts that learn depend on beside their rows: nothing if these have their answers, and
        caches round nothing."""
        return self.rounded | ({} if self.plan.labels == "given" else {"labels": {"teacher": self._longest}})

    @property
    def _longest(self) -> int | str:
        """After how many tokens the teacher's answers are cut off, if the plan says it."""
        return self.plan.evaluation.max_new_tokens or "data"

    @cached_property
    def _own_answers(self) -> dict[Role, Examples]:
        return {}

    def _find_or_write(self, role: Role, examples: Examples) -> Examples:
        inputs = {
            "version": _CACHE_VERSION,
            "teacher": self.original,
            "data": examples.split.digest,
            "dtype": str(self.dtype),
            "longest": self._longest,
        }
        name = f"answers-{digest_of(inputs)}"
        tensors = self.store.read_tensors(name)
        if tensors is None:
            longest = longest_answer(examples, self.plan.evaluation.max_new_tokens)
            written = write_answers(
                self.teacher_model,
                examples,
                range(len(examples.rows)),
                longest,
                self.ends,
                self.plan.evaluation.batch_size,
            )
            answers = [written[row] for row in range(len(examples.rows))]
            cut = sum(not answer or answer[-1] not in self.ends for answer in answers)
            if cut:
                say_once(
                    f"{cut} of the teacher's {len(answers)} answers to split {examples.split.name} do not end within "
                    f"{longest} tokens and are cut off there; evaluation.max_new_tokens gives another number"
                )
            made = {"tokens": [token for one in answers for token in one], "lengths": [len(one) for one in answers]}
            tensors = {key: torch.tensor(values, dtype=torch.int32) for key, values in made.items()}
            self.store.write_tensors(name, tensors, self._subjects(examples.split))
            tensors = self.store.read_tensors(name) or tensors  # another process may have been first
        answers = [part.tolist() for part in tensors["tokens"].split(tensors["lengths"].tolist())]
        rows = (replace(row, answer=answer) for row, answer in zip(examples.rows, answers, strict=True))
        return with_rows(examples, rows, digest_of({"answers": name}))

    def _find_or_encode(self, split: Split, role: Role) -> Examples:
        inputs = {"version": _CACHE_VERSION, "teacher": self.original, "data": split.digest}
        name = f"examples-{digest_of(inputs)}"
        processor, config = self._processor, self.anatomy.config
        with self.store.tensor_file(name) as stored:
            if stored is not None:
                return read_examples(stored, split, processor, config)
        turns, template = turns_of(self.plan, role), self.plan.template
        with naming_the_way_out(self.plan):
            examples = encode(split, processor, config, turns=turns, template=template)
        with self.store.new_tensors(name, self._subjects(split)) as path:
            examples.save(path)
            return read_examples(path, split, processor, config)

    @property
    def _processor(self) -> Any:
        return load_processor(self.store.checkpoint(self.original, weights=False))

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
        return self._cached is not None and bool(self.frozen)

    @cached_property
    def _anatomies(self) -> dict[str, Anatomy]:
        return {}

    @property
    def _cached(self) -> CacheSettings | None:
        return self.plan.distillation.cached

    @cached_property
    def caches(self) -> Caches:
        """What the teacher makes of the rows, kept within the plan's budget."""
        roles = get_args(Role)
        whole = lambda: Subjects(checkpoints=[self.original], data=[self.digest(role) for role in roles])  # noqa: E731
        return Caches(self.store, self._cached or CacheSettings(), whole, makes=bool(self.makes))

    @property
    def rounded(self) -> dict[str, Any]:
        """What results depend on where caches are stored in a dtype that rounds what they keep: else nothing."""
        stored = (self._cached and dtype_named(self._cached.dtype)) or self.dtype
        return {} if torch.promote_types(stored, self.dtype) is stored else {"caches": str(stored)}

    def features(self, role: Role, checkpoint: str | None = None) -> Kept | None:
        """The visual features [images, tokens, width] of a role's images; None if they are not cached, or do not fit.

        Where no step of the plan changes the image side they are the original's. Where steps leave it as the last
        checkpoint has it (`image_side: features`), they are those of a `checkpoint`, if one is named.
        """
        apart = self._cached is not None and self.plan.distillation.image_side == "features"
        if not self.sees_once and not (apart and checkpoint):
            return None
        examples, seer = self.examples(role), self._seer(checkpoint or self.original)
        pixels = None if self.anatomy.projector is None else examples.pixels
        return self.caches.get(
            self._wanted("features", role, examples, 0 if pixels is None else len(pixels), seer),
            lambda new: visual_features(self._model_of(checkpoint), examples, self.anatomy, _BATCH, new),
        )

    def _seer(self, checkpoint: str) -> str | None:
        """The digest of a checkpoint's image side; None if it is the original's."""
        if self.sees_once or checkpoint == self.original:
            return None
        for one in (self.original, checkpoint):
            if one not in self._image_sides:
                self._image_sides[one] = digest_of_tensors(self.store.checkpoint(one), self.anatomy.image_side)
        own, first = self._image_sides[checkpoint], self._image_sides[self.original]
        return None if own == first else own

    @cached_property
    def _image_sides(self) -> dict[str, str]:
        return {}

    def _model_of(self, checkpoint: str | None) -> torch.nn.Module:
        if checkpoint in (None, self.original):
            return self.teacher_model
        return load_model(self.store.checkpoint(checkpoint), self.dtype).to(self.accelerator.device)

    @cached_property
    def teacher_model(self) -> torch.nn.Module:
        return load_model(self.teacher, self.dtype).requires_grad_(False).to(self.accelerator.device)

    @cached_property
    def teacher_head(self) -> torch.nn.Module:
        """The teacher's head alone, which is all of it that cached states need."""
        return load_head(self.teacher, self.anatomy, self.dtype).to(self.accelerator.device)

    def release_teacher(self) -> None:
        """Let go of the teacher's model, so that a student has its memory. It is loaded again where it is needed."""
        if self.__dict__.pop("teacher_model", None) is not None:
            release_memory()  # which torch would keep of a GPU for tensors of the same sizes

    @property
    def teacher_states(self) -> TensorRows | None:
        """The inputs of the teacher's head at every answer position of the distillation rows [positions, width]; None
        if they are not cached, or do not fit."""
        return self._states_of("distill", self.lessons("distill"))

    def _states_of(self, role: Role, examples: Examples) -> TensorRows | None:
        def compute(new: NewFile) -> TensorRows:
            seen, order = self.features(role, self.original), grouped(examples, _BATCH)
            return answer_states(self.teacher_model, examples, self.anatomy.projector, seen, order, new)

        if self._cached is None:
            return None
        found = self.caches.get(self._wanted("states", role, examples, examples.positions), compute)
        assert not isinstance(found, RaggedRows)
        return found

    def teacher_logits(self, batch: Batch) -> torch.Tensor:
        """The teacher's logits [positions, vocabulary] of a distillation batch, from cached states if they are used."""
        return self.teacher_logits_of("distill", self.lessons("distill"), batch)

    def teacher_logits_of(self, role: Role, examples: Examples, batch: Batch) -> torch.Tensor:
        """The teacher's logits [positions, vocabulary] of a batch of a role's rows, from cached states if they are
        used."""
        with torch.no_grad():
            states = self._teacher_states_in(role, examples, batch)
            return states.head(states.inputs)

    def teacher_states_of(self, batch: Batch) -> States:
        """What the teacher's logits of a distillation batch come from, cached if that is allowed."""
        with torch.no_grad():
            return self._teacher_states_in("distill", self.lessons("distill"), batch)

    def _teacher_states_in(self, role: Role, examples: Examples, batch: Batch) -> States:
        found, states = batch.goals, None if batch.goals is not None else self._states_of(role, examples)
        if states is not None:
            found = states[batch.number.cpu().numpy()]
        if found is None:
            head = self.teacher_model.get_output_embeddings()  # type: ignore[operator]
            seen = self._as_the_teacher_sees(role, examples, batch)
            return States(head_inputs(self.teacher_model, seen, self.anatomy.projector), head)
        assert isinstance(found, torch.Tensor)
        return States(found.to(self.accelerator.device, self.dtype), self.teacher_head)

    def _as_the_teacher_sees(self, role: Role, examples: Examples, batch: Batch) -> Batch:
        """A batch with the original's features, where it may have those of a checkpoint's image side."""
        if batch.features is None or self.sees_once:
            return batch
        return make_batch(examples, batch.examples, self.features(role, self.original)).to(self.accelerator.device)

    def logits(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """A model's logits [positions, vocabulary] at a batch's answer positions."""
        return answer_logits(model, batch, self.anatomy.projector)

    def student_logits(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """The logits [positions, vocabulary] of a student for a distillation batch, computed as it learns."""
        with self.in_students_dtype(model):
            return answer_logits(model, batch, self.anatomy.projector)

    def student_states(self, model: torch.nn.Module, batch: Batch) -> States:
        """What a student's logits of a distillation batch come from: its head computes as the rest of it does."""
        head: torch.nn.Module = model.get_output_embeddings()  # type: ignore[operator]

        def logits(states: torch.Tensor) -> torch.Tensor:
            with self.in_students_dtype(model):
                found: torch.Tensor = head(states)
            return found

        with self.in_students_dtype(model):
            inputs = head_inputs(model, batch, self.anatomy.projector)
        return States(inputs, logits, tuple(weight for weight in head.parameters() if weight.requires_grad))

    def in_students_dtype(self, model: torch.nn.Module) -> torch.autocast:
        """In this context a student with float32 weights computes in the plan's dtype, and one with bfloat16 weights in
        theirs."""
        half = torch.bfloat16 in (self.dtype, next(model.parameters()).dtype)
        return torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=half)

    def _subjects(self, split: Split) -> Subjects:
        """The subjects of a result that depends on the teacher and a split."""
        return Subjects(checkpoints=[self.original], data=[split.digest])

    def _wanted(self, kind: Kind, role: Role, examples: Examples, rows: int, seer: str | None = None) -> Wanted:
        """The cache of what the teacher, or the image side `seer`, makes of a role's examples, so many `rows`."""
        name = self._cache_name(kind, examples, seer)
        split = self.examples(role).split
        return Wanted(kind, name, rows, split.name, self._subjects(split))

    def _cache_name(self, kind: str, examples: Examples, seer: str | None = None) -> str:
        stored = (self._cached and dtype_named(self._cached.dtype)) or self.dtype
        inputs = ({} if seer is None else {"image_side": seer}) | {
            "version": _CACHE_VERSION,
            "teacher": self.original,
            "data": examples.split.digest,
            "dtype": str(self.dtype),
            "device": self.accelerator.device.type,
        }
        if stored is not self.dtype:
            inputs["stored"] = str(stored)
        return f"{kind}-{digest_of(inputs)}"
