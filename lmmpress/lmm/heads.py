"""Loads the head of a checkpoint's model alone: from hidden states to logits."""

from pathlib import Path

import torch

from lmmpress.lmm.anatomy import Anatomy
from lmmpress.lmm.checkpoint import StoredValues
from lmmpress.lmm.families.registry import family_of
from lmmpress.lmm.read_anatomy import build_on_meta


def load_head(checkpoint: Path, anatomy: Anatomy, dtype: torch.dtype) -> torch.nn.Module:
    """The head, which computes logits [..., vocabulary] from hidden states [..., width], in `dtype`. Only its own
    tensors are read; `anatomy` is that of the checkpoint."""
    model = build_on_meta(anatomy.config, family_of(anatomy.config).auto_class)
    head: torch.nn.Module = model.get_output_embeddings()  # type: ignore[operator]
    (module,) = (name for name, one in model.named_modules() if one is head)
    stored = StoredValues(checkpoint)
    values = {}
    for name in head.state_dict():
        full = f"{module}.{name}"
        # a checkpoint of tied weights stores them under one of their names
        found = next(one for one in (full, *_same(anatomy, full)) if one in stored.names)
        values[name] = stored.tensor(found).to(dtype)
    head.load_state_dict(values, assign=True)
    return head.requires_grad_(False).eval()


def _same(anatomy: Anatomy, name: str) -> list[str]:
    """The other names of a tied tensor."""
    owner = anatomy.ties.get(name, name)
    return [owner, *(alias for alias, tied in anatomy.ties.items() if tied == owner)]
