"""Read the run's state: is this step to be made?"""

from kfp import dsl


@dsl.component(base_image="lmmpress", install_kfp_package=False)
def due(
    store: str,
    run: str,
    stage: str,
    index: int,
) -> str:
    """Whether a step is the one to be made now: `open`, or `closed` where it is done or its stage has ended."""
    from lmmpress.tasks.due_steps import due

    return due(store, run, stage, index)
