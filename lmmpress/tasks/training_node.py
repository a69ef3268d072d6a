"""The task of each node of a distillation on several nodes: they share the rows, and the first stores the result."""

from lmmpress.engine.decisions import position
from lmmpress.engine.part_names import Part
from lmmpress.engine.remaining import outlook
from lmmpress.engine.resume import read_history
from lmmpress.errors import UserError
from lmmpress.host.sigterm import ended_in_order
from lmmpress.progress import at_step
from lmmpress.tasks.exit_codes import for_people
from lmmpress.tasks.outcome import Outcome
from lmmpress.tasks.submission import open_submission
from lmmpress.tasks.tries import halvings


@for_people
def distill_node(store: str, run: str, stage: str, index: int) -> Outcome:
    """Distil as one of several nodes, which the variables of torchrun tell of. The first one stores the result."""
    with ended_in_order():  # from the beginning: imports take seconds
        import torch

        from lmmpress.engine.meeting import Meeting
        from lmmpress.engine.parts.launch import join
        from lmmpress.engine.run import open_run
        from lmmpress.engine.step import Step
        from lmmpress.host.machines import machines_here

        machines = machines_here(torch.cuda.device_count())
        if machines is None:
            raise UserError(
                "task distill_node runs on the nodes of a TrainJob, which gives them PET_NNODES and its like"
            )
        opened, asked = open_submission(store, run)
        meeting = Meeting(machines)
        if not machines.is_first:
            join(opened, meeting)
            return Outcome("", f"node {machines.number} of {machines.count} has done its share")
        known = read_history(opened, asked.plan, asked.original, opened.history(asked.key))
        _, planned = position(asked.plan, asked.original, known, stage, int(index))
        makes: frozenset[Part] = frozenset(("distill",))
        made = open_run(asked.plan, opened, asked.key, asked.original, makes, False, False, halvings(), meeting)
        with at_step(outlook(asked.plan, known, planned)):
            distilled = Step(made.materials, planned).distilled
        return Outcome(opened.address(distilled.checkpoint) if distilled.checkpoint else "", "distilled")
