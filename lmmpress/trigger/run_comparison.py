"""The comparison that a run has made at its end: from the store of the run to that of the trigger, where the rule of
promotion finds it."""

from lmmpress.engine.algorithm import next_step
from lmmpress.engine.kept import kept_comparison, why_uncompared
from lmmpress.errors import AwayError, UserError
from lmmpress.evaluation.comparison import Comparison
from lmmpress.trigger.claims import Claim
from lmmpress.trigger.comparisons import keep, part_to_keep
from lmmpress.trigger.progress import Progress, progress_of
from lmmpress.trigger.trigger import Trigger


def take_comparison(trigger: Trigger, claim: Claim) -> str:
    """Keep the comparison of a run that has succeeded, in the run's name; what came of it, in one line.

    A run whose comparison cannot be taken is not held up by that. Raises AwayError if a store is away: then it is
    worth another try.
    """
    try:
        progress = progress_of(trigger, claim)
        found = comparison_of(progress) if progress else None
        if progress is None or found is None:
            why = why_uncompared(progress.store, progress.key) if progress else ""
            return f"it was not compared with its original{f': {why}' if why else ''}"
        kept = part_to_keep(found)
        keep(trigger.objects, kept, by=claim.run, at=trigger.clock())
    except AwayError:
        raise
    except (UserError, OSError) as error:
        said = error.lines[0] if isinstance(error, UserError) else error.strerror
        return f"its comparison cannot be taken: {said}"
    return f"compared with its original: {kept.all.drop:.4f} lost on {kept.data.rows} rows"


def comparison_of(progress: Progress) -> Comparison | None:
    """The whole comparison that a run has made; None if it has made none. UserError where it is of another pair than
    the run's original and its result: whoever may write to the run's store must not speak for other runs."""
    found = kept_comparison(progress.store, progress.key)
    pair = progress.original, next_step(progress.plan, progress.original, progress.steps)
    if found and (found.a.checkpoint, found.b.checkpoint) != pair:
        raise UserError(f"{progress.store.root_address}: the comparison of run {progress.key[:12]} is of another pair")
    return found
