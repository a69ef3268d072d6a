"""Other losses to distil with, after lmmpress's own cuts. Where they are the loss, there is no hinge of Eq. 5."""

from typing import Any

import torch

from peers.own import MAGNITUDE, by_criterion, last_blocks
from peers.peer import Case, Loss, Peer

# trl.experimental.gkd.gkd_config of 1.16.0: beta 0.5 is the default; the trainer passes no temperature to the loss.
# Rows of the data as they are: its lmbda, the share of answers that the student writes itself, is 0 here.
JSD = {"loss": "GKDTrainer.generalized_jsd_loss", "beta": 0.5, "temperature": 1.0, "lmbda": 0.0}
# modelopt.torch.distill.losses of 0.47.0: the default, forward divergence
KD = {"loss": "LogitsDistillationLoss", "temperature": 1.0}


def cut(case: Case) -> str:
    """The sample preset's own cut."""
    return last_blocks(case) if case.task.axis == "block" else by_criterion(MAGNITUDE)(case)


def trl_jsd() -> Loss:
    from trl.experimental.gkd import GKDTrainer

    def loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        each: Any = GKDTrainer.generalized_jsd_loss(student, teacher, beta=JSD["beta"], reduction="none")
        found: torch.Tensor = each.sum(-1)
        return found

    return loss


def modelopt_kd() -> Loss:
    from modelopt.torch.distill import LogitsDistillationLoss

    found: Loss = LogitsDistillationLoss(temperature=KD["temperature"], reduction="none")
    return found


ONLY = ("12 to 2 blocks", "attention -1/2")
PEERS = (
    Peer("lmmpress's cut, trl's loss", cut, ("block", "attention"), JSD, "trl", only=ONLY, loss=trl_jsd),
    Peer(
        "lmmpress's cut, modelopt's loss",
        cut,
        ("block", "attention"),
        KD,
        "nvidia-modelopt",
        only=ONLY,
        loss=modelopt_kd,
    ),
)
