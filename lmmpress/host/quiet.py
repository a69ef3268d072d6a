"""Keeps transformers from printing while a function of the library works."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_VERBOSITY = "TRANSFORMERS_VERBOSITY"


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Within this context transformers prints errors only, unless the environment says how much it prints.

    In a notebook tqdm, which transformers imports, warns where ipywidgets are not installed: nothing here needs them.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")
        with _with_errors_only():
            yield


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
