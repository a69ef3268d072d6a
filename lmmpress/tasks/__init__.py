"""What pods run: a function for each task of a pipeline, its parameters, and the profile of a cluster.

Tasks run on different machines and share only the store. `prepare` writes the submission there, under a name; every
other task gets that name, reads the run's state, makes its part of the step that is due, and shows the result. A task
that runs again finds its part in the store.

The functions below serve pipelines that were compiled by versions with all tasks in one module: their code says
`from lmmpress.tasks import prepare`, and has to run with newer images. These names keep their parameters and results;
tests/kubeflow/recorded holds such pipelines. New code imports from the modules. No module has the name of a function
here, because an imported module would replace the function.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmmpress.tasks.compiled_before import Prepared
    from lmmpress.tasks.outcome import Outcome


def prepare(name: str, **parameters: Any) -> "Prepared":
    """The first task of these versions; its `outputs` are the submission's name and the steps of four stages."""
    from lmmpress.tasks.compiled_before import prepare

    return prepare(name, **parameters)


def due(store: str, run: str, stage: str, index: int) -> str:
    from lmmpress.tasks.due_steps import due

    return due(store, run, stage, index)


def importance(store: str, run: str, stage: str, index: int) -> "Outcome":
    from lmmpress.tasks.step_parts import importance

    return importance(store, run, stage, index)


def prune(store: str, run: str, stage: str, index: int) -> "Outcome":
    from lmmpress.tasks.step_parts import prune

    return prune(store, run, stage, index)


def distill(store: str, run: str, stage: str, index: int) -> "Outcome":
    from lmmpress.tasks.step_parts import distill

    return distill(store, run, stage, index)


def evaluate(store: str, run: str, stage: str, index: int = 0) -> "Outcome":
    from lmmpress.tasks.measuring import evaluate

    return evaluate(store, run, stage, index)


def gate(store: str, run: str, stage: str, index: int) -> "Outcome":
    from lmmpress.tasks.gating import gate

    return gate(store, run, stage, index)


def compress_stage(store: str, run: str, stage: str) -> "Outcome":
    from lmmpress.tasks.whole_stage import compress_stage

    return compress_stage(store, run, stage)


def publish(store: str, run: str, report: str) -> "Outcome":
    from lmmpress.tasks.publication import publish

    return publish(store, run, report)
