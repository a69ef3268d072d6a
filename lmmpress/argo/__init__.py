"""Argo Workflows without Kubeflow: a plan as a WorkflowTemplate, pod settings, submit, follow, resume."""

from lmmpress.host.extras import needs


def needs_hera(what: str) -> None:
    """Raise UserError if hera, which writes Argo's objects, is not installed. `what` needs it."""
    needs("hera", what, "hera.workflows")
