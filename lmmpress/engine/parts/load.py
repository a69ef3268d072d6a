"""Load: plain transformers loads what is delivered."""

from typing import Any

import torch

from lmmpress.engine.materials import Materials
from lmmpress.engine.parts.once import once
from lmmpress.lmm.verify import verify_for_users


def load_as_users_do(materials: Materials, checkpoint: str) -> None:
    """See that transformers alone loads a checkpoint and computes what it should; UserError where it does not."""
    import transformers

    inputs = {"checkpoint": checkpoint, "torch": torch.__version__, "transformers": transformers.__version__}

    def work(_: int) -> dict[str, Any]:
        verify_for_users(materials.store.checkpoint(checkpoint))
        return {}

    once(materials, "load", inputs, work)
