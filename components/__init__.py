"""The tasks of the pipelines: one folder each, with names, types and one call into the library."""

from collections.abc import Callable
from typing import Any


def component(function: Callable[..., Any]) -> Any:
    """A component of Kubeflow's of a function that runs in our image. In a task, where Kubeflow's SDK cannot compile,
    it is the function itself: a compiled pipeline names these modules instead of holding their source."""
    from kfp import dsl

    compiled = getattr(dsl, "component", None)
    return compiled(base_image="lmmpress", install_kfp_package=False)(function) if compiled else function
