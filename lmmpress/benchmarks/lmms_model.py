"""The model class that lmms-eval asks about pictures: any checkpoint that transformers loads as image and text to text.

lmms-eval has a class for each family that it knows. It has none for BLIP-2, and its class for LLaVA needs a chat
template and a package for videos. This one asks every checkpoint in one way: with the chat template of its processor,
if it has one, else with the task's text behind its pictures. start_harness.py loads it in the harness' interpreter,
which need not have lmmpress.
"""

from itertools import groupby
from typing import Any

import torch
import transformers
from lmms_eval.api.model import lmms

_MOST_TOKENS = 1024  # lmms-eval's, where a task does not say
_PICTURE = "<image>"
_PASSED_ON = ("temperature", "top_p", "num_beams", "repetition_penalty", "length_penalty", "no_repeat_ngram_size")


class Checkpoint(lmms):
    """A checkpoint of images and text to text."""

    is_simple = True

    def __init__(self, pretrained: str, batch_size: int | str = 1, device: str | None = None, **_: Any) -> None:
        super().__init__()
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._at_once = int(batch_size)
        trusted: dict[str, Any] = {"trust_remote_code": False}
        self._processor = transformers.AutoProcessor.from_pretrained(pretrained, **trusted)
        model = transformers.AutoModelForImageTextToText.from_pretrained(pretrained, dtype="auto", **trusted)
        self._model = model.eval().to(self._device)

    def generate_until(self, requests: list[Any]) -> list[Any]:
        """The answer to each request, by plain greedy generation unless its task asks for something else."""
        answers: list[str] = [""] * len(requests)
        prepared = []
        for place, request in enumerate(requests):
            text, settings, visuals, row, task, split = request.args
            pictures = visuals(self.task_dict[task][split][row]) or []
            prepared.append(
                (repr(settings), len(pictures), place, self._prompt(text, len(pictures)), pictures, settings)
            )
        prepared.sort(key=lambda one: (one[0], one[1], len(one[3]), one[2]))
        for _, alike in groupby(prepared, key=lambda one: one[:2]):
            waiting = list(alike)
            for start in range(0, len(waiting), self._at_once):
                batch = waiting[start : start + self._at_once]
                for one, answer in zip(batch, self._answers([(o[3], o[4]) for o in batch], batch[0][5]), strict=True):
                    answers[one[2]] = answer
        return answers

    def loglikelihood(self, requests: list[Any]) -> list[Any]:
        raise NotImplementedError("lmmpress asks lmms-eval's tasks for generated answers only, not for likelihoods")

    def generate_until_multi_round(self, requests: list[Any]) -> list[Any]:
        raise NotImplementedError("lmmpress asks lmms-eval's tasks in one round only")

    def _prompt(self, text: str, pictures: int) -> str:
        if getattr(self._processor, "chat_template", None):
            content = [*({"type": "image"} for _ in range(pictures)), {"type": "text", "text": text}]
            messages = [{"role": "user", "content": content}]
            return str(self._processor.apply_chat_template(messages, add_generation_prompt=True))
        if self._model.config.model_type.endswith("blip-2"):  # its processor puts the picture in front
            return text
        return text if _PICTURE in text else f"{_PICTURE}\n" * pictures + text

    def _together(self, encoded: list[Any]) -> dict[str, torch.Tensor]:
        """The inputs of a batch from those of its rows, padded on the left.

        The processor of BLIP-2 would pad between the picture and the text, where a model with relative positions, such
        as T5, sees the gap.
        """
        length = max(row["input_ids"].shape[1] for row in encoded)
        inputs = {}
        for name in encoded[0]:
            values = [row[name] for row in encoded]
            if name in ("input_ids", "attention_mask"):
                pad = self._processor.tokenizer.pad_token_id or 0 if name == "input_ids" else 0
                values = [torch.nn.functional.pad(value, (length - value.shape[1], 0), value=pad) for value in values]
            value = torch.cat(values).to(self._device)
            inputs[name] = value.to(self._model.dtype) if value.is_floating_point() else value
        return inputs

    @torch.no_grad()
    def _answers(self, batch: list[tuple[str, list[Any]]], settings: dict[str, Any]) -> list[str]:
        """The answers to prompts with equally many pictures."""
        inputs = self._together(
            [self._processor(images=seen or None, text=[text], return_tensors="pt") for text, seen in batch]
        )
        chosen = {name: settings[name] for name in _PASSED_ON if settings.get(name) is not None}
        if not (sampled := chosen.get("temperature", 0) > 0):
            chosen = {name: value for name, value in chosen.items() if name not in ("temperature", "top_p")}
        most = settings.get("max_new_tokens", _MOST_TOKENS)
        ids = self._model.generate(**inputs, max_new_tokens=most, do_sample=sampled, **chosen)
        asked = inputs["input_ids"]
        if ids.shape[1] > asked.shape[1] and bool((ids[:, : asked.shape[1]] == asked).all()):
            ids = ids[:, asked.shape[1] :]
        answers = self._processor.tokenizer.batch_decode(ids, skip_special_tokens=True)
        stops = settings.get("until") or []
        return [_before(answer, [stops] if isinstance(stops, str) else stops) for answer in answers]


def _before(text: str, stops: list[str]) -> str:
    """The text before the first of these."""
    for stop in stops:
        text = text.split(stop)[0] if stop else text
    return text
