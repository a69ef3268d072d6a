"""Metrics of sameness: the right answer but for its writing, and an answer that contains it."""

from lmmpress.metrics.metric import Metric, best_over_answers
from lmmpress.metrics.words import same_writing

_EDGE = "\n"  # around every word; no word has it, since spaces of every kind separate words


def normalised() -> Metric:
    """A row is 1 if its answer is a right one, but for case, width, punctuation and spaces (`words.same_writing`)."""
    about = "answers that are right but for case, width, punctuation and spaces"
    return Metric("normalised", "text", "higher", (0.0, 1.0), True, about, best_over_answers(_is_same))


def contains() -> Metric:
    """A row is 1 if the words of a right answer stand in the model's, one after the other; compared as in
    `normalised`."""
    about = "answers that contain a right one"
    return Metric("contains", "text", "higher", (0.0, 1.0), True, about, best_over_answers(_holds))


def _is_same(said: str, answer: str) -> float:
    return float(same_writing(said) == same_writing(answer))


def _holds(said: str, answer: str) -> float:
    wanted = same_writing(answer)
    return float(_edged(wanted) in _edged(same_writing(said)) if wanted else not same_writing(said))


def _edged(found: tuple[str, ...]) -> str:
    return _EDGE + "".join(word + _EDGE for word in found)
