"""The rule that a version has to keep before it is promoted: a comparison of this pair, and how much it may lose."""

from dataclasses import dataclass

from lmmpress.printing.one_line import printable
from lmmpress.trigger.aliases import Aliases, Registered, mlflow_aliases
from lmmpress.trigger.comparisons import Kept, of_pair
from lmmpress.trigger.promotion_settings import PromotionSettings
from lmmpress.trigger.texts import Text
from lmmpress.trigger.trigger import Trigger


def aliases_of(trigger: Trigger) -> Aliases:
    """The aliases of the trigger's registry."""
    return trigger.aliases or mlflow_aliases(trigger.settings.tracking)


@dataclass(frozen=True)
class Candidate:
    """A version of a compressed model, as the registry and the store say it: read once, for all that is asked of it.

    `about` is None where there is no such version. `comparisons` are those with its original, the oldest first, each
    with whether the rule counts it.
    """

    compressed: str
    version: str
    about: Registered | None
    comparisons: tuple[tuple[Kept, bool], ...]


def read_candidate(trigger: Trigger, compressed: str, version: str, rule: PromotionSettings) -> Candidate:
    """What is known of a version. UserError if MLflow or the store do not answer."""
    about = aliases_of(trigger).about(compressed, version)
    if about is None or about.checkpoint is None or about.original is None:
        return Candidate(compressed, version, about, ())
    found = of_pair(trigger.objects, about.original, about.checkpoint)
    return Candidate(compressed, version, about, tuple((one, _counts(one, rule)) for one in found))


def broken_rules(candidate: Candidate, rule: PromotionSettings) -> tuple[Text, ...]:
    """Why a version may not be promoted by the rule, a text for each reason."""
    compressed, version, about = candidate.compressed, candidate.version, candidate.about
    if about is None:
        return (Text("refused.no_version", compressed=compressed, version=repr(printable(version, 40))),)
    if not about.ready:
        return (Text("refused.not_ready", compressed=compressed, version=version),)
    if not rule.comparison:
        return ()
    if about.checkpoint is None or about.original is None:
        return (Text("refused.unknown_origin", compressed=compressed, version=version),)
    counted = _counted(candidate)
    if counted is None:
        return (_compare_first(about.original, about.checkpoint, len(candidate.comparisons), rule),)
    loss = counted.comparison.all
    lost = loss.drop_interval.high if rule.certain else loss.drop
    if lost > rule.most_lost:
        return (
            Text(
                "refused.lost.certain" if rule.certain else "refused.lost",
                lost=f"{lost:.4f}",
                at=f"{counted.at:%Y-%m-%d %H:%M}",
                rows=counted.comparison.data.rows,
                most=f"{rule.most_lost:g}",
            ),
        )
    return ()


def _counts(one: Kept, rule: PromotionSettings) -> bool:
    """Whether a comparison is on enough rows, of all tasks, and on the data that the rule names."""
    data = one.comparison.data
    return data.rows >= rule.least_rows and not data.tasks and rule.data in (None, data.digest)


def _counted(candidate: Candidate) -> Kept | None:
    """The newest comparison that counts."""
    return next((one for one, counts in reversed(candidate.comparisons) if counts), None)


def _compare_first(a: str, b: str, n: int, rule: PromotionSettings) -> Text:
    """What is to be done where none of the `n` comparisons counts."""
    first = Text("refused.compare_first", original=a[:12], compressed=b[:12])
    if not n:
        return first
    if rule.data:
        return Text("refused.none_counts.of_data", n=n, rows=rule.least_rows, data=rule.data, then=first)
    return Text("refused.none_counts", n=n, rows=rule.least_rows, then=first)


def evidence(candidate: Candidate, rule: PromotionSettings) -> str:
    """What the promotion rests on, for the audit."""
    counted = _counted(candidate) if rule.comparison else None
    if counted is None:
        return "without a comparison"
    loss, rows = counted.comparison.all, counted.comparison.data
    return (
        f"lost {loss.drop:.4f} ({loss.drop_interval.low:.4f} to {loss.drop_interval.high:.4f}) on {rows.rows} rows "
        f"of data {rows.digest[:20]}, compared by {counted.by}"
    )
