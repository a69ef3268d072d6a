"""Keeps transformers, and torchao, from printing while a function of the library works."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_VERBOSITY = "TRANSFORMERS_VERBOSITY"
_BROUGHT = ("torchao", "torch.utils._pytree")
"""Loggers of what transformers imports where it is installed: torchao warns of libraries for other GPUs."""


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Within this context transformers prints errors only, unless the environment says how much it prints.

    In a notebook tqdm, which transformers imports, warns where ipywidgets are not installed: nothing here needs them.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")
        with quiet_torchao(), _with_errors_only():
            yield


@contextmanager
def quiet_torchao() -> Iterator[None]:
    """Within this context importing torchao prints errors only."""
    loggers = [logging.getLogger(name) for name in _BROUGHT]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


@contextmanager
def _with_errors_only() -> Iterator[None]:
    if _VERBOSITY in os.environ:
        yield
        return
    logger = logging.getLogger("transformers")
    before = logger.level if "transformers" in sys.modules else logging.WARNING  # which it takes when it is imported
    os.environ[_VERBOSITY] = "error"
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        os.environ.pop(_VERBOSITY, None)
        logger.setLevel(before)
