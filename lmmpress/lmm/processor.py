"""A checkpoint's processor: what makes tokens of text and pixels of pictures."""

from pathlib import Path
from typing import Any

from lmmpress.errors import UserError
from lmmpress.lmm.apart import make_known
from lmmpress.lmm.read_anatomy import read_config


def load_processor(checkpoint: Path) -> Any:
    """The checkpoint's processor, or its tokenizer where it has no images."""
    from transformers import AutoProcessor

    make_known(read_config(checkpoint))
    try:
        return AutoProcessor.from_pretrained(checkpoint, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{checkpoint}: no processor or tokenizer: {str(error).splitlines()[0]}") from None


def tokenizer_of(processor: Any) -> Any:
    """The tokenizer of what `load_processor` gave."""
    return getattr(processor, "tokenizer", processor)
