"""Which machine computes a part, and what tells the energy that it takes."""

import os

import torch

from lmmpress.engine.materials import Materials
from lmmpress.engine.part_names import Part
from lmmpress.host.energy_use import Gauge, Watts, gauge_of
from lmmpress.host.peak_memory import Peak, gpu_numbers
from lmmpress.host.pod import this_pod
from lmmpress.result import Machine


def this_machine(peak: Peak, at_once: dict[str, int]) -> Machine:
    """This pod or machine, with the memory that a part took at most, and how many rows went through a model at once in
    what it did."""
    pod = this_pod()
    kinds = sorted({torch.cuda.get_device_name(number) for number in gpu_numbers()})
    return Machine(
        pod=pod.name,
        node=pod.node or os.uname().nodename,
        gpu=", ".join(kinds),
        peak_memory=peak.process,
        peak_gpu_memory=peak.gpu,
        at_once=at_once,
    )


def gauge_for(materials: Materials, part: Part) -> Gauge | None:
    """What tells the energy of a part on this machine: the processors, and the GPUs that it may use; None if nothing
    does."""
    plan, settings = materials.plan, materials.plan.evaluation
    processes: dict[Part, int] = {
        "importance": plan.importance.processes,
        "distill": plan.distillation.processes,
        "evaluate": settings.processes,
    }
    gpus = materials.meeting.machines.processes if materials.meeting else processes.get(part, 1)
    return gauge_of(materials.accelerator.device.type, gpus, Watts(settings.watts_per_core, settings.watts_per_gpu))
