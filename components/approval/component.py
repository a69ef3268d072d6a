"""Wait until a person lets the run go on."""

from lmmpress.components import component


@component
def approval(
    store: str,
    run: str,
    stage: str,
) -> str:
    """Wait after a stage until its approval is in the store (`lmmpress approve`); who has given it."""
    from lmmpress.tasks.approval import wait_for_approval

    return wait_for_approval(store, run, stage)
