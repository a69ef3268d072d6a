"""Gives every task to every peer, and keeps what came of it: a row for each, with its figures or with the reason why
there are none."""

import json
import multiprocessing
import sys
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from common import Peak, on_gate

from lmmpress.distillation import loss as own_loss
from lmmpress.engine.materials import Materials
from lmmpress.engine.parts.training import train
from lmmpress.host.whole_file import write_whole
from lmmpress.lmm.checkpoint import load_model
from lmmpress.settings.distillation import Distillation
from lmmpress.store import Store
from peers import activations, blocks, losses, own, rotation, torch_pruner
from peers.peer import Case, Loss, Peer, Task, missing

TASKS = (
    Task("12 to 2 blocks", "block", 10, epochs=2, shallow=False),
    Task("ffn -1/2", "ffn", 256),
    Task("attention -1/2", "attention", 96),
    Task("io -1/4", "io", 48),
)
PEERS: tuple[Peer, ...] = (
    *own.PEERS,
    *blocks.PEERS,
    *torch_pruner.PEERS,
    *activations.PEERS,
    *rotation.PEERS,
    *losses.PEERS,
)
EQUAL = 0.01
"""By which share the sizes of one task may differ."""

Row = dict[str, Any]


def row(case: Case, peer: Peer) -> Row:
    """What comes of a case: size, accuracy before and after distilling, seconds of the processor, and memory; or `why`
    there is nothing."""
    if why := peer.why_not.get(case.task.axis) or missing(peer.package):
        return {"why": why}
    try:
        return measured(case, peer)
    except Exception as error:  # whatever stops a peer is its row
        return {"why": f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"}


def measured(case: Case, peer: Peer) -> Row:
    materials, epochs = case.materials, peer.epochs or case.task.epochs
    with Peak() as cutting, computing_anew():
        begun = time.process_time()
        cut = peer.cut(case)
        seconds = time.process_time() - begun
    model = load_model(materials.store.checkpoint(cut))
    found: Row = {"parameters": parameters(model), "loads": loads(materials.store.checkpoint(cut), model)}
    before = on_gate(materials, model)
    del model
    with Peak() as distilling, learning(peer.loss):
        begun = time.process_time()
        settings = materials.plan.distillation.model_copy(update={"epochs": epochs})
        distilled = train(materials, cut, case.seed, settings).checkpoint
        spent = time.process_time() - begun
    if distilled is None:
        return found | {"why": "the loss is not finite"}
    after = on_gate(materials, load_model(materials.store.checkpoint(distilled)))
    return found | {
        "before": before,
        "after": after,
        "cut_seconds": seconds,
        "cut_megabytes": cutting.bytes / 1e6,
        "distil_seconds": spent,
        "distil_megabytes": distilling.bytes / 1e6,
    }


def computing_anew() -> AbstractContextManager[Any]:
    """In this context scores, repairs and epochs that the store has are made again, so that they take what they
    take."""
    read = Store.read_record

    def other_parts(self: Any, name: str) -> Any:
        return None if name.startswith(("importance", "distill")) else read(self, name)

    return patch.object(Store, "read_record", other_parts)


def parameters(model: torch.nn.Module) -> int:
    """The parameters of the language tower and of what projects to it; tied ones count once."""
    return sum(one.numel() for name, one in model.named_parameters() if name.startswith("language"))


def loads(folder: Path, model: torch.nn.Module) -> bool:
    """Whether plain `from_pretrained` makes a model of transformers' own classes of a checkpoint, with all its
    weights."""
    from transformers import AutoModelForImageTextToText

    plain, told = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    whole = not any(told[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    same = all(map(torch.equal, plain.state_dict().values(), model.state_dict().values()))
    return whole and same and type(plain).__module__.startswith("transformers.")


def learning(loss: Any) -> AbstractContextManager[Any]:
    """In this context lmmpress's loop trains with another loss."""
    if loss is None:
        return nullcontext()
    theirs: Loss = loss()

    def in_its_place(
        student: torch.Tensor, teacher: torch.Tensor, targets: torch.Tensor, settings: Distillation
    ) -> torch.Tensor:
        return theirs(student.float(), teacher.detach().float())

    return patch.object(own_loss, "distillation_loss", in_its_place)


def rows(materials: Materials, starts: dict[bool, str], seed: int, folder: Path, names: Iterable[str]) -> list[Row]:
    """The row of every task and peer for one seed; those that `folder` has are not made again."""
    found = []
    for task in TASKS:
        for peer in PEERS:
            if not peer.listed(task) or (names and task.name not in names):
                continue
            case = Case(task, materials, starts[task.shallow], seed)
            kept = folder / f"{task.name} {peer.name} {seed}.json".replace(" ", "_").replace("/", "_")
            if not kept.exists():
                in_a_process(case, peer, kept)
            one = json.loads(kept.read_text("utf-8"))
            print(task.name, peer.name, seed, one, file=sys.stderr, flush=True)
            found.append({"task": task.name, "peer": peer.name, "seed": seed} | one)
    return found


def in_a_process(case: Case, peer: Peer, kept: Path) -> None:
    """Make a row in a process of its own, so that its memory is its own and no peer changes another."""

    def work() -> None:
        torch.manual_seed(case.seed)
        write_whole(kept, json.dumps(row(case, peer)))

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    if process.exitcode:
        kept.write_text(json.dumps({"why": f"its process ended with status {process.exitcode}"}), "utf-8")


def unequal(found: list[Row]) -> list[str]:
    """The rows whose size is not that of the first of their task."""
    wrong: list[str] = []
    first: dict[str, int] = {}
    for one in found:
        if "parameters" in one:
            size = first.setdefault(one["task"], one["parameters"])
            if abs(one["parameters"] - size) > EQUAL * size:
                wrong.append(f"{one['task']}, {one['peer']}: {one['parameters']:,}, not {size:,}")
    return wrong
