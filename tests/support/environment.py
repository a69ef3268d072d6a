"""The environment of tests and of the processes that they start."""

import logging
import os
import tempfile

import torch
from hypothesis import settings

hidden: dict[str, str] = {}
"""What `isolate` hides; the tests on a real cluster find it here."""


def isolate() -> None:
    """Hide the settings of the user who runs the tests, use no proxy for local servers, and compute on one thread."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "MLFLOW_", "KFP_", "KUBE", "LMMPRESS_")):
            hidden[name] = os.environ.pop(name)
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "COLUMNS"):
        os.environ.pop(name, None)
    os.environ["LMMPRESS_CACHE"] = tempfile.mkdtemp(prefix="lmmpress-cache-")
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"

    # the workers keep all cores busy, and no result depends on the number of cores
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    # hypothesis tries the same cases in every run, however slow the machine is
    settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
    settings.load_profile("repeatable")
    logging.getLogger("transformers").setLevel(logging.ERROR)
