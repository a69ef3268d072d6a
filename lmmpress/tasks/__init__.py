"""What pods run: a function for each task of a pipeline, its parameters, and the profile of a cluster.

Tasks run on different machines and share nothing but the store. `prepare` notes there what was asked, under a name;
every other task is given that name, finds where the run stands, makes its part of the step that is due, and shows what
it did. A task that runs again finds its part made.

The functions below are a door for pipelines that were compiled by versions whose tasks stood in one module: their code
says `from lmmpress.tasks import prepare`, and has to run with newer images. These names stay, with what they take and
give; tests/kubeflow/recorded holds such pipelines. New code imports from the modules. No module has the name of a
function here, because a module that is imported would take its place.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmmpress.tasks.compiled_before import Prepared
    from lmmpress.tasks.outcome import Outcome


def prepare(name: str, **parameters: Any) -> "Prepared":
    """Of these versions the first task, whose `outputs` are the submission's name and the steps of four stages."""
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
    from lmmpress.tasks.step_parts import gate

    return gate(store, run, stage, index)


def compress_stage(store: str, run: str, stage: str) -> "Outcome":
    from lmmpress.tasks.whole_stage import compress_stage

    return compress_stage(store, run, stage)


def publish(store: str, run: str, report: str) -> "Outcome":
    from lmmpress.tasks.publication import publish

    return publish(store, run, report)
