"""A checkpoint that is ready to be measured: its files are checked, its model is loaded only where it is needed."""

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from lmmpress.data import Split
from lmmpress.evaluation.greedy import check_greedy, end_tokens
from lmmpress.evaluation.timed import Subject
from lmmpress.lmm.anatomy import Anatomy
from lmmpress.lmm.checkpoint import load_model, read_checkpoint
from lmmpress.lmm.examples import Examples, encode
from lmmpress.lmm.processor import load_processor, tokenizer_of
from lmmpress.plan import Template

DTYPE = torch.float32
"""What models are measured in, where nothing else is asked for."""


@dataclass(frozen=True)
class Opened:
    """A checkpoint whose files fit together, the tokens that end its answers, the dtype that it computes in, and which
    rows its chat template renders."""

    folder: Path
    anatomy: Anatomy
    processor: Any
    ends: frozenset[int]
    dtype: torch.dtype = DTYPE
    template: Template = "auto"

    @property
    def tokenizer(self) -> Any:
        return tokenizer_of(self.processor)

    def encoded(self, split: Split) -> Examples:
        """The rows as this model's inputs; UserError where they do not fit it."""
        return encode(split, self.processor, self.anatomy.config, template=self.template)

    def load(self) -> torch.nn.Module:
        """The model, on its device."""
        return load_model(self.folder, self.dtype).to(Accelerator().device)

    @contextmanager
    def loaded(self, examples: Examples) -> Iterator[Subject]:
        """The model with these rows, on its device while the block runs. The block must not keep it."""
        subject = Subject(self.load(), self.tokenizer, examples, self.ends)
        try:
            yield subject
        finally:
            del subject
            give_memory_back()


def open_to_measure(folder: Path, dtype: torch.dtype = DTYPE, template: Template = "auto") -> Opened:
    """Check a checkpoint's files.

    Raises UserError where they do not fit together, and where plain greedy generation would not answer what the model's
    logits say.
    """
    anatomy, processor = read_checkpoint(folder), load_processor(folder)
    ends = end_tokens(folder)
    check_greedy(folder, tokenizer_of(processor))
    return Opened(folder, anatomy, processor, ends, dtype, template)


def give_memory_back() -> None:
    """Return memory that is free to the system, so that what is loaded next does not seem to need less."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    with suppress(OSError, AttributeError):  # glibc alone
        ctypes.CDLL(None).malloc_trim(0)
