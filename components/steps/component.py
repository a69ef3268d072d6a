"""Read the plan: how many steps may a stage have?"""

from lmmpress.components import component


@component
def steps(
    store: str,
    run: str,
    stage: str,
) -> list[int]:
    """The numbers of the steps that a stage makes if the gate accepts them all."""
    from lmmpress.tasks.due_steps import steps

    return steps(store, run, stage)
