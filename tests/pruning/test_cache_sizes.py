"""What `lmmpress plan` says of caches is what they hold."""

from typing import Any

import pytest
import torch
from support.tiny import MODELS, config_of, make_model

from lmmpress.lmm.forward import image_features
from lmmpress.lmm.read_anatomy import anatomy_of
from lmmpress.plan import Plan, parse_plan
from lmmpress.pruning.cache_sizes import note_of, numbers_by_token


def plan(**settings: Any) -> Plan:
    raw = {"model": "m", "data": "d", "stages": {"ffn": {"step": 8, "max": 16}}, "towers": ["language"]}
    return parse_plan(raw | settings)


@pytest.mark.parametrize("name", MODELS)
def test_the_numbers_of_a_token_are_those_that_head_and_projector_take(name: str) -> None:
    anatomy, model = anatomy_of(config_of(name)), make_model(config_of(name))
    head: torch.nn.Linear = model.get_output_embeddings()  # type: ignore[operator]
    wanted = {"token of an answer": head.in_features}
    if anatomy.projector is not None:
        with torch.no_grad():
            seen = image_features(model, torch.zeros(1, 3, 16, 16), anatomy.projector)
        wanted["visual token of a picture"] = seen.shape[-1]
    assert numbers_by_token(anatomy, plan()) == wanted


def test_only_what_is_kept_is_counted() -> None:
    anatomy = anatomy_of(config_of("blip2-llama"))
    cut = {"towers": ["vision"]}
    assert numbers_by_token(anatomy, plan(distillation={"caches": False})) == {}
    assert numbers_by_token(anatomy, plan(**cut)).keys() == {"token of an answer"}
    assert len(numbers_by_token(anatomy, plan(**cut, distillation={"image_side": "features"}))) == 2


@pytest.mark.parametrize(
    ("settings", "note"),
    [
        ({}, "192 B for each token of an answer and 128 B for each visual token of a picture; half of that on a GPU"),
        ({"dtype": "float32"}, "192 B for each token of an answer and 128 B for each visual token of a picture"),
        ({"distillation": {"caches": {"dtype": "bfloat16"}}}, "96 B for each token of an answer and 64 B for each"),
        ({"towers": ["qformer"]}, "192 B for each token of an answer; half of that on a GPU"),
    ],
)
def test_a_line_says_how_large_caches_get(settings: dict[str, Any], note: str) -> None:
    anatomy = anatomy_of(config_of("blip2-llama"))
    found = note_of(anatomy, plan(**settings))
    assert found.startswith(f"caches on the disk: {note}")
    assert found.endswith("GPU") == note.endswith("GPU")
    assert note_of(anatomy, plan(distillation={"caches": False})) == ""
