"""The comparison with peers: what bench/peers computes itself, equal sizes, and rows with reasons in place of gaps."""

import copy
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.paths import ROOT
from transformers import LlamaConfig, LlamaForCausalLM

from lmmpress.distillation.loss import States, loss_in_portions
from lmmpress.lmm.batches import Batch
from lmmpress.settings.distillation import Distillation

sys.path.append(str(ROOT / "bench"))  # benches import each other by name

from peers.blocks import influence, most
from peers.peer import Case, Peer, Task
from peers.rotation import components, equal_width, fold_norms, turn
from peers.run import PEERS, TASKS, learning, row, unequal
from peers.surgery import keep_heads
from peers.table import tables

PAGE = ROOT / "docs/peers.md"
WIDTH, HEADS = 24, 4


def llama(**changes: Any) -> Any:
    """A tiny Llama in float64 whose norms have weights of their own."""
    shape = {"vocab_size": 40, "hidden_size": WIDTH, "num_attention_heads": HEADS, "head_dim": 6}
    config = LlamaConfig(
        **shape | {"intermediate_size": 32, "num_hidden_layers": 3, "tie_word_embeddings": True} | changes
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3 + (1.0 if "norm" in name else 0.0))
    return model


def batch(*lengths: int) -> Batch:
    """Rows of random tokens, padded on the right."""
    ids = torch.randint(1, 40, (len(lengths), max(lengths)), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    nothing = torch.zeros(0, dtype=torch.long)
    inputs = {"input_ids": ids * mask, "attention_mask": mask.long()}
    return Batch(list(range(len(lengths))), inputs, mask, nothing, nothing, nothing)


def logits(model: Any, one: Batch) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(**one.inputs).logits[one.inputs["attention_mask"].bool()]
    return found


def assert_same(found: Any, expected: Any) -> None:
    """To six digits of the logits: norms compute in float32, whatever the weights are."""
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_block_that_changes_nothing_has_no_influence() -> None:
    model = llama()
    idle = model.model.layers[1]
    with torch.no_grad():
        idle.self_attn.o_proj.weight.zero_()
        idle.mlp.down_proj.weight.zero_()
    scores = influence(model.model.layers, [batch(5, 7)], lambda one: logits(model, one))
    assert scores[1].abs() < 1e-12
    assert (scores[[0, 2]] > 1e-3).all()
    assert most(scores, 2) == [0, 2]


def test_padding_has_no_influence() -> None:
    model = llama()
    alone = [influence(model.model.layers, [batch(7)], lambda one: logits(model, one))]
    padded = batch(7)
    longer = {name: torch.nn.functional.pad(value, (0, 5)) for name, value in padded.inputs.items()}
    alone.append(influence(model.model.layers, [replace(padded, inputs=longer)], lambda one: logits(model, one)))
    torch.testing.assert_close(*alone)


def test_the_mean_of_influence_is_over_tokens() -> None:
    model = llama()
    parts = [batch(3), batch(9)]
    each = [influence(model.model.layers, [one], lambda one: logits(model, one)) for one in parts]
    both = influence(model.model.layers, parts, lambda one: logits(model, one))
    torch.testing.assert_close(both, (3 * each[0] + 9 * each[1]) / 12)


def rotation() -> torch.Tensor:
    columns: torch.Tensor = torch.linalg.qr(torch.randn(WIDTH, WIDTH, dtype=torch.float64)).Q
    return columns


def projected(model: Any, projector: torch.nn.Linear) -> torch.Tensor:
    """Logits where a projector has written the first states, as a picture's are."""
    seen = torch.randn(2, 3, projector.in_features, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        found: torch.Tensor = model(inputs_embeds=projector(seen)).logits
    return found


def test_a_rotation_keeps_the_function_before_anything_is_sliced() -> None:
    model, projector, one = llama(), torch.nn.Linear(5, WIDTH).double(), batch(5, 7)
    before = logits(model, one), projected(model, projector)
    fold_norms(model)
    assert_same((logits(model, one), projected(model, projector)), before)
    turn(model, [projector], rotation())
    assert_same((logits(model, one), projected(model, projector)), before)


def test_directions_that_nothing_uses_are_sliced_without_loss() -> None:
    kept = WIDTH - HEADS
    model, projector, one = llama(), torch.nn.Linear(5, WIDTH).double(), batch(5, 7, 9, 11)
    inside = rotation()[:, :kept]
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(model.model.embed_tokens.weight @ inside @ inside.T)
        writers = [layer for block in model.model.layers for layer in (block.self_attn.o_proj, block.mlp.down_proj)]
        for writer in [*writers, projector]:
            writer.weight.copy_(inside @ inside.T @ writer.weight)
        projector.bias.copy_(inside @ inside.T @ projector.bias)
    fold_norms(model)
    before = logits(model, one), projected(model, projector)
    found = components(model, [one], lambda one: logits(model, one))
    turn(model, [projector], found[:, :kept])
    assert model.config.hidden_size == model.model.embed_tokens.weight.shape[1] == kept
    assert_same((logits(model, one), projected(model, projector)), before)


def test_a_sliced_llama_loads_as_a_plain_one(tmp_path: Path) -> None:
    model, one = llama(), batch(5, 7)
    fold_norms(model)
    turn(model, [], rotation()[:, : WIDTH - HEADS])
    model.save_pretrained(tmp_path)
    loaded = LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float64).eval()
    assert_same(logits(loaded, one), logits(model, one))


@pytest.mark.parametrize("target", [12, 16, 20])
def test_an_untied_llama_is_sliced_to_the_size_of_a_tied_one(target: int) -> None:
    tied = llama(hidden_size=target, vocab_size=4)
    whole = llama(vocab_size=4)
    fold_norms(whole)
    width = equal_width(whole, [], target)
    sliced = llama(hidden_size=width, vocab_size=4, tie_word_embeddings=False)
    sizes = [sum(one.numel() for one in model.parameters()) for model in (tied, sliced)]
    step = sizes[1] / width * HEADS
    assert width % HEADS == 0
    assert abs(sizes[0] - sizes[1]) <= step / 2, "a multiple of the heads lies nearer"


def test_heads_that_are_removed_say_nothing_in_the_uncut_model() -> None:
    model, one = llama(), batch(5, 7)
    muted, cut = copy.deepcopy(model), copy.deepcopy(model)
    kept = [torch.tensor(numbers) for numbers in ([2, 0], [1, 3], [0, 1])]
    with torch.no_grad():
        for block, heads in zip(muted.model.layers, kept, strict=True):
            gone = torch.ones(HEADS, dtype=torch.bool)
            gone[heads] = False
            block.self_attn.o_proj.weight.view(WIDTH, HEADS, -1)[:, gone] = 0
    keep_heads(cut, kept)
    assert_same(logits(cut, one), logits(muted, one))
    assert cut.config.num_attention_heads == cut.config.num_key_value_heads == 2


def never(_: Case) -> str:
    raise AssertionError("it must not be asked")


def fails(_: Case) -> str:
    raise RuntimeError("out of luck\nand more")


CASE = Case(Task("ffn -1/2", "ffn", 256), None, "", 0)  # type: ignore[arg-type]  # nothing of it is read


@pytest.mark.parametrize("most", [1, 1 << 20])
def test_another_loss_takes_the_place_of_lmmpress_in_what_trains(most: int) -> None:
    def theirs(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        return (student - teacher).square().sum(-1)

    own, other = (States(torch.randn(5, 3), torch.nn.Identity()) for _ in range(2))
    wanted = (own.inputs - other.inputs).square().sum()
    with learning(lambda: theirs):
        found = loss_in_portions(own, other, torch.zeros(5, dtype=torch.long), Distillation(), most)
    assert torch.isclose(found, wanted)


def test_a_peer_that_is_not_installed_is_a_row_that_says_so() -> None:
    peer = Peer("absent", never, ("ffn",), package="lmmpress-has-no-such-peer")
    assert row(CASE, peer) == {
        "why": "lmmpress-has-no-such-peer is not installed; install bench/peers/requirements.txt"
    }


def test_a_peer_that_fails_is_a_row_that_says_why() -> None:
    assert row(CASE, Peer("unlucky", fails, ("ffn",))) == {"why": "RuntimeError: out of luck"}


def test_a_peer_that_cannot_do_a_task_is_a_row_that_says_why() -> None:
    peer = Peer("narrow", never, ("io",), why_not={"ffn": "it cuts the stream"})
    assert row(CASE, peer) == {"why": "it cuts the stream"}


def test_sizes_that_differ_by_more_than_a_percent_are_found() -> None:
    rows = [{"task": "a", "peer": str(size), "parameters": size} for size in (1000, 1010, 990, 1011)]
    assert unequal([*rows, {"task": "a", "peer": "absent", "why": "not installed"}]) == ["a, 1011: 1,011, not 1,000"]


def test_packages_have_their_versions() -> None:
    lines = (ROOT / "bench/peers/requirements.txt").read_text("utf-8").splitlines()
    pinned = {line.split("==")[0] for line in lines if "==" in line and not line.startswith("#")}
    assert {peer.package for peer in PEERS} - {""} <= pinned
    assert all(line.startswith("#") or re.fullmatch(r"[a-z0-9-]+==[\d.]+", line) for line in lines)


RESULT = ROOT / "docs/results/peers.json"
FIGURES = (
    "<!-- figures: written by tests/repository/test_peers.py from docs/results/peers.json -->",
    "<!-- end of figures -->",
)


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RESULT.read_text("utf-8"))
    return found


def test_every_peer_has_a_row_in_every_task_that_was_measured(kept: dict[str, Any]) -> None:
    done = {one["task"] for one in kept["tasks"]}
    assert done
    expected = {(task.name, peer.name) for task in TASKS if task.name in done for peer in PEERS if peer.listed(task)}
    assert {(one["task"], one["peer"]) for one in kept["tasks"]} == expected
    assert all(("after" in one) != bool(one.get("why")) for one in kept["tasks"])


def test_what_was_measured_is_of_equal_size_and_of_packages_of_the_list(kept: dict[str, Any]) -> None:
    assert unequal(kept["tasks"]) == []
    lines = (ROOT / "bench/peers/requirements.txt").read_text("utf-8").splitlines()
    assert {f"{name}=={version}" for name, version in kept["versions"].items()} <= set(lines)


def test_the_page_has_the_kept_figures(kept: dict[str, Any], request: pytest.FixtureRequest) -> None:
    text, (begin, end) = PAGE.read_text("utf-8"), FIGURES
    before, rest = text.split(begin)
    _, after = rest.split(end)
    expected = f"{before}{begin}\n{tables(kept)}\n{end}{after}"
    if request.config.getoption("--write-docs"):
        PAGE.write_text(expected, "utf-8")
    assert expected == PAGE.read_text("utf-8"), "`pytest tests/repository/test_peers.py --write-docs` writes it"


def test_a_table_has_what_was_measured_and_why_nothing_was() -> None:
    figures = {
        "parameters": 1200,
        "loads": True,
        "before": {"accuracy": 0.5, "loss": 2.0},
        "cut_seconds": 1.0,
        "cut_megabytes": 20.0,
        "distil_seconds": 9.96,
    }
    rows = [
        {"task": "a", "peer": "one", "seed": seed} | figures | {"after": {"accuracy": 0.9 + seed / 100, "loss": 0.25}}
        for seed in range(3)
    ]
    rows.append({"task": "a", "peer": "other", "seed": 0, "why": "out of luck"})
    assert tables({"tasks": rows}).splitlines() == [
        "### a",
        "",
        "| way | parameters | cut | distilled | loss | cutting, s | cutting, MB | distilling, s | loads |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        "| one | 1,200 | 0.500 (0.500 to 0.500) | 0.910 (0.900 to 0.920) | 0.250 (0.250 to 0.250) | 1.0 (1.0 to 1.0) "
        "| 20 (20 to 20) | 10.0 (10.0 to 10.0) | yes |",
        "",
        "Without figures:",
        "",
        "- other: out of luck",
    ]


def test_every_cell_about_a_tool_leads_to_what_it_rests_on() -> None:
    text = PAGE.read_text("utf-8")
    part = text.split("<!-- features:")[1].split("<!-- end of features -->")[0]
    names = dict(re.findall(r"^\[([\w-]+)\]: (https://\S+)$", text, re.MULTILINE))
    rows = [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("|")][2:]
    assert len(rows) > 10
    for what, ours, *others in rows:
        assert re.fullmatch(r"\[[^\]]+\]\([\w./-]+\)(, \[[^\]]+\]\([\w./-]+\))*", ours), what
        assert len(others) == 3, what
        for cell in others:
            found = re.findall(r"\[[^\]]+\](?:\[([\w-]+)\]|\((#measured)\))", cell)
            assert found, f"{what}: {cell}"
            assert all(place or name in names for name, place in found), f"{what}: {cell}"
