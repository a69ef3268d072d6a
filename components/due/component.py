"""Read the run's state: is this step to be made?"""

from lmmpress.components import component


@component
def due(
    store: str,
    run: str,
    stage: str,
    index: int,
) -> str:
    """Whether a step is the one to be made now: `open`, or `closed` where it is done or its stage has ended."""
    from lmmpress.tasks.due_steps import due

    return due(store, run, stage, index)
