"""Builds the untrained AntGMM-mini: tokenizer, processor and model, all plain transformers objects."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    Blip2QFormerConfig,
    Blip2VisionConfig,
    BlipImageProcessorPil,
    GenerationConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
)

from lmmpress.sample.copywriting import TASKS, characters
from lmmpress.sample.drawing import SIZE

QUERIES = len(TASKS)  # in vision training each query predicts one task
PAD, EOS, UNKNOWN, IMAGE = "<pad>", "<eos>", "<unk>", "<image>"

VISION_WIDTH = 96
TEXT_WIDTH = 192


def train_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Train a small BPE tokenizer with few and short merges, so that a title has many tokens."""
    tokenizer = Tokenizer(BPE(unk_token=UNKNOWN))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.train_from_iterator(
        texts,
        BpeTrainer(
            vocab_size=440,
            special_tokens=[PAD, EOS, UNKNOWN, IMAGE],
            initial_alphabet=list(characters()),
            max_token_length=4,
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNKNOWN,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def make_processor(tokenizer: PreTrainedTokenizerFast) -> Blip2Processor:
    """A processor that scales pixels from 0..255 to -1..1, keeps their size, and puts `QUERIES` image tokens before the
    prompt."""
    image_processor = BlipImageProcessorPil(
        size={"height": SIZE, "width": SIZE},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    return Blip2Processor(image_processor, tokenizer, num_query_tokens=QUERIES)


def make_config(tokenizer: PreTrainedTokenizerFast) -> Blip2Config:
    """The config. The language tower has nearly all parameters and needs nearly all time, as in large models.

    The initial standard deviation is about 1/sqrt(width). The default of transformers, 0.02, is meant for widths of
    thousands; with it a model of this width hardly learns.
    """
    vision = Blip2VisionConfig(
        hidden_size=VISION_WIDTH,
        intermediate_size=4 * VISION_WIDTH,
        num_hidden_layers=3,
        num_attention_heads=6,
        image_size=SIZE,
        patch_size=8,
        initializer_range=0.1,
    )
    qformer = Blip2QFormerConfig(
        vocab_size=1,  # the Q-Former reads no text
        hidden_size=VISION_WIDTH,
        intermediate_size=4 * VISION_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=6,
        cross_attention_frequency=1,
        encoder_hidden_size=VISION_WIDTH,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        max_position_embeddings=1,
        initializer_range=0.1,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=512,
        num_hidden_layers=12,
        num_attention_heads=12,
        num_key_value_heads=12,
        head_dim=16,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        initializer_range=0.07,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    return Blip2Config(
        vision_config=vision,
        qformer_config=qformer,
        text_config=text,
        num_query_tokens=QUERIES,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        initializer_range=0.07,
        tie_word_embeddings=True,
    )


def make_model(tokenizer: PreTrainedTokenizerFast) -> Blip2ForConditionalGeneration:
    """An untrained model on the CPU in float32."""
    model = Blip2ForConditionalGeneration(make_config(tokenizer))
    # transformers initialises the queries with zeros; equal queries would stay similar
    torch.nn.init.normal_(model.query_tokens)
    greedy = GenerationConfig(
        do_sample=False,
        max_new_tokens=8,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.generation_config = greedy
    model.language_model.generation_config = greedy
    return model
