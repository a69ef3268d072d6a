"""Several machines that make a part together, as this one is told in the variables of torchrun."""

import os
from dataclasses import dataclass

_COUNT, _PROCESSES, _NUMBER = "PET_NNODES", "PET_NPROC_PER_NODE", "PET_NODE_RANK"
_ADDRESS, _PORT = "PET_MASTER_ADDR", "PET_MASTER_PORT"


@dataclass(frozen=True)
class Machines:
    """So many machines (`count`) with so many `processes` each. This is the one with that `number`, from 0. They meet
    at the `address` of the first: its processes at the `port`, and the machines themselves at the next one."""

    count: int
    processes: int
    number: int
    address: str
    port: int

    @property
    def is_first(self) -> bool:
        """Whether the others wait for this machine."""
        return self.number == 0


def machines_here(gpus: int) -> Machines | None:
    """The machines that the environment tells of, as Kubeflow Trainer and torchrun do; None if this one is alone.
    `gpus` are those of this machine: without a number of processes there is one for each, or a single one."""
    count = _whole(_COUNT)
    if count < 2 or _ADDRESS not in os.environ:
        return None
    return Machines(count, _whole(_PROCESSES) or gpus or 1, _whole(_NUMBER), os.environ[_ADDRESS], _whole(_PORT))


def _whole(variable: str) -> int:
    text = os.environ.get(variable, "")
    return int(text) if text.isdecimal() else 0
