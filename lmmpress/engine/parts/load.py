"""The part `load`: checks that plain transformers loads the delivered checkpoint."""

from typing import Any

import torch

from lmmpress.engine.materials import Materials
from lmmpress.engine.parts.once import once
from lmmpress.lmm.verify import verify_for_users


def load_as_users_do(materials: Materials, checkpoint: str) -> None:
    """Check that plain transformers loads a checkpoint and computes the right logits. Raises UserError if not."""
    import transformers

    inputs = {"checkpoint": checkpoint, "torch": torch.__version__, "transformers": transformers.__version__}

    def work(_: int) -> dict[str, Any]:
        verify_for_users(materials.store.checkpoint(checkpoint))
        return {}

    once(materials, "load", inputs, work)
