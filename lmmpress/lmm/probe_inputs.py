"""Computes logits for a few random inputs, to compare one checkpoint with another."""

from typing import Any

import torch

Tensors = dict[str, torch.Tensor]


def probe_inputs(model: torch.nn.Module, rows: int = 2, length: int = 7) -> Tensors:
    """Random token ids and, for models with a vision tower, random pixels; the same for every cut of a model."""
    config: Any = model.config
    generator = torch.Generator().manual_seed(0)
    vocabulary = config.get_text_config().vocab_size
    ids = torch.randint(0, vocabulary, (rows, length), generator=generator)
    if not hasattr(config, "vision_config"):
        return {"input_ids": ids} | _decoded(config, vocabulary, rows, generator)
    vision = config.vision_config
    size = vision.image_size
    pixels = torch.randn(rows, getattr(vision, "num_channels", 3), size, size, generator=generator)
    image_token = config.image_token_id
    ids[ids == image_token] = (image_token + 1) % vocabulary
    with torch.no_grad():
        features = model.get_image_features(pixels).pooler_output  # type: ignore[operator]
    ids = torch.cat([torch.full((rows, len(features[0])), image_token), ids], dim=1)
    return {"input_ids": ids, "pixel_values": pixels} | _decoded(config, vocabulary, rows, generator)


@torch.no_grad()
def probe_logits(model: torch.nn.Module, inputs: Tensors) -> torch.Tensor:
    """Logits [rows, length, vocabulary] in float32."""
    logits: torch.Tensor = model(**inputs, use_cache=False).logits
    return logits.float()


def _decoded(config: Any, vocabulary: int, rows: int, generator: torch.Generator) -> Tensors:
    """The decoder inputs of an encoder-decoder model; empty for other models."""
    text = config.get_text_config()
    if not getattr(text, "is_encoder_decoder", False):
        return {}
    return {"decoder_input_ids": torch.randint(0, vocabulary, (rows, 4), generator=generator)}
