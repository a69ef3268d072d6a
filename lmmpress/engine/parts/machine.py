"""Which machine computes a part."""

import os

import torch

from lmmpress.host.peak_memory import Peak, gpu_numbers
from lmmpress.host.pod import this_pod
from lmmpress.result import Machine


def this_machine(peak: Peak) -> Machine:
    """This pod or machine, with the memory that a part took at most."""
    pod = this_pod()
    kinds = sorted({torch.cuda.get_device_name(number) for number in gpu_numbers()})
    return Machine(
        pod=pod.name,
        node=pod.node or os.uname().nodename,
        gpu=", ".join(kinds),
        peak_memory=peak.process,
        peak_gpu_memory=peak.gpu,
    )
