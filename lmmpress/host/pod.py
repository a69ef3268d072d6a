"""Which pod this process runs in, from the variables that a pipeline's pods get."""

import os
from dataclasses import dataclass

POD, NODE, IMAGE = "LMMPRESS_POD", "LMMPRESS_NODE", "LMMPRESS_IMAGE"
"""The pod's own name and its node, both from the downward API, and the image as the pipeline names it."""
WORKFLOW, PIPELINE_RUN = "LMMPRESS_WORKFLOW", "LMMPRESS_PIPELINE_RUN"
"""Argo's workflow, and Kubeflow's id of the run; both from labels of the pod, so that they need no parameter."""
NAMESPACE = "LMMPRESS_NAMESPACE"
"""The pod's namespace, from the downward API."""
PAGES, MLFLOW_PAGES = "LMMPRESS_PAGES", "LMMPRESS_MLFLOW_PAGES"
"""The addresses at which people see the pages of the engine and of MLflow."""
COMMIT = "LMMPRESS_COMMIT"
"""The commit that the image was built from."""
SUBMITTER = "LMMPRESS_SUBMITTER"
"""Who submitted the pipeline; only the first task's pod has it."""
SUBMISSION_LABEL = "lmmpress/submission"
"""Label of a workflow that `submit` has made, and of its pods."""
PART_LABEL, STAGE_LABEL = "lmmpress/part", "lmmpress/stage"
"""Labels of every pod of a pipeline: which part of a step it makes, and of which stage."""


@dataclass(frozen=True)
class Pod:
    """The pod of this process; `name` is empty outside a cluster."""

    name: str
    node: str
    image: str
    workflow: str
    pipeline_run: str
    namespace: str


def this_pod() -> Pod:
    """The pod of this process; all its fields are empty outside a cluster."""
    return Pod(*(os.environ.get(name, "").strip() for name in (POD, NODE, IMAGE, WORKFLOW, PIPELINE_RUN, NAMESPACE)))
