"""The registry of all metrics by name: those of this package, and those that other packages offer."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from inspect import signature

from lmmpress.errors import UserError
from lmmpress.metrics import measured
from lmmpress.metrics.cider import cider
from lmmpress.metrics.edits import anls, cer, wer
from lmmpress.metrics.metric import Metric
from lmmpress.metrics.numeric import numeric
from lmmpress.metrics.overlap import rouge_l, token_f1
from lmmpress.metrics.same_text import contains, normalised
from lmmpress.metrics.vqa import vqa
from lmmpress.settings.faults import nearest

ENTRY_POINTS = "lmmpress.metrics"
"""The entry points through which another package offers a metric: each names a `Metric`."""

Parameters = Mapping[str, float]

_OURS: dict[str, Callable[..., Metric]] = {
    make.__name__: make
    for make in (
        measured.exact,
        measured.token_accuracy,
        normalised,
        contains,
        vqa,
        anls,
        token_f1,
        rouge_l,
        cider,
        numeric,
        wer,
        cer,
        measured.agreement,
        measured.kl,
    )
}
"""The functions that make our metrics; their arguments are the metrics' parameters."""


def metric_names() -> list[str]:
    """The names of all metrics, ours first. No metric of another package is loaded for that."""
    return [*_OURS, *sorted(_offers().keys() - _OURS.keys())]


def is_ours(name: str) -> bool:
    """Whether a metric is of this package."""
    return name in _OURS


def parameters_of(name: str) -> list[str]:
    """The names of a metric's parameters, the one first that a number alone stands for; a metric of another package has
    none. UserError with the nearest name if there is no such metric, and if several are offered under the name."""
    offers = _offers().get(name, [])
    if len(offers) > (name not in _OURS):
        packages = ", ".join(sorted(map(_package, offers)))
        others = "is lmmpress's own, and another one is" if name in _OURS else "is"
        raise UserError(f"metric {name!r} {others} offered by {packages}; remove what is not meant")
    if name in _OURS:
        return list(signature(_OURS[name]).parameters)
    if not offers:
        raise UserError(f"there is no metric {name!r}; {nearest(name, metric_names())}")
    return []


def metric_named(name: str, parameters: Parameters | None = None) -> Metric:
    """The metric of that name, with its parameters.

    Raises UserError with the nearest name for an unknown metric or parameter, for a parameter out of its range, and
    with the reason if the metric is another package's and cannot be used.
    """
    known = parameters_of(name)
    given = dict(parameters or {})
    for parameter in given:
        if parameter not in known:
            if not known:
                raise UserError(f"metric {name!r} takes no parameters")
            raise UserError(f"metric {name!r} has no parameter {parameter!r}; {nearest(parameter, known)}")
    if name not in _OURS:
        (offer,) = _offers()[name]
        return _loaded(name, offer)
    try:
        return _OURS[name](**given)
    except ValueError as error:
        raise UserError(f"metric {name!r}: {error}") from None


@lru_cache(maxsize=1)
def _offers() -> dict[str, list[EntryPoint]]:
    """What installed packages offer, by name."""
    found: dict[str, list[EntryPoint]] = {}
    for offer in entry_points(group=ENTRY_POINTS):
        found.setdefault(offer.name, []).append(offer)
    return found


def _package(offer: EntryPoint) -> str:
    return offer.dist.name if offer.dist else offer.value


def _loaded(name: str, offer: EntryPoint) -> Metric:
    """A metric of another package. UserError, with the package's name, for whatever is wrong with it."""
    try:
        metric = offer.load()
        if not isinstance(metric, Metric):
            raise TypeError(f"{offer.value} is no Metric")
        if metric.name != name or metric.needs != "text" or metric.score is None:
            raise TypeError(f"{offer.value} is not the metric {name!r} with a function that scores texts")
        low, high = metric.bounds
        if not low < high or metric.better not in ("higher", "lower"):
            raise TypeError(f"{offer.value} has no bounds from low to high, or no better end of them")
        if metric.package is not None:
            raise TypeError(f"{offer.value} has a package, which is for lmmpress's own metrics")
        return metric
    except (Exception, SystemExit) as error:  # whatever another package raises, the message names that package
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(
            f"metric {name!r} of package {_package(offer)} cannot be used: {type(error).__name__}: {reason}; "
            "mend the package or name another metric"
        ) from None
