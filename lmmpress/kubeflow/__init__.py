"""Kubeflow Pipelines: compile, pod settings, submit, and the tasks as processes of this machine."""

from lmmpress.host.extras import needs


def needs_sdk(what: str) -> None:
    """Raise UserError if the SDK of Kubeflow Pipelines is not installed, or only the part that runs a task, as in a
    pod. `what` needs it."""
    needs("kfp", what, "kfp.compiler", "kfp.kubernetes")
