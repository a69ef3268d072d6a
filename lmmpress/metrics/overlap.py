"""Metrics of words in common: token F1, and ROUGE-L.

Sources: Rajpurkar et al. 2016, evaluate-v2.0.py of SQuAD; Lin 2004, ROUGE-L as in the package rouge-score.
"""

import string
import unicodedata
from collections import Counter

from lmmpress.metrics.metric import Metric, best_over_answers
from lmmpress.metrics.words import numbered, one_width, unspaced_apart, words

_ARTICLES = frozenset(("a", "an", "the"))


def token_f1() -> Metric:
    """A row is the harmonic mean of precision and recall of the words, each as often as it stands, in any order."""
    about = "words in common with a right answer (F1)"
    return Metric("token_f1", "text", "higher", (0.0, 1.0), False, about, best_over_answers(_f1))


def rouge_l() -> Metric:
    """A row is the harmonic mean of precision and recall of the longest common subsequence of words."""
    about = "words in common with a right answer, in their order (ROUGE-L)"
    return Metric(
        "rouge_l", "text", "higher", (0.0, 1.0), False, about, best_over_answers(_rouge_l), package="rapidfuzz"
    )


def _f1(said: str, answer: str) -> float:
    found, right = Counter(_squad_words(said)), Counter(_squad_words(answer))
    if not found or not right:
        return float(found == right)
    return _harmonic((found & right).total(), found.total(), right.total())


def _rouge_l(said: str, answer: str) -> float:
    from rapidfuzz.distance import LCSseq

    found, right = numbered(words(said), words(answer))
    return _harmonic(LCSseq.similarity(found, right), len(found), len(right))


def _harmonic(common: int, found: int, right: int) -> float:
    """The harmonic mean of precision and recall; 0 if nothing is in common."""
    if not common:
        return 0.0
    precision, recall = common / found, common / right
    return 2 * precision * recall / (precision + recall)


def _squad_words(text: str) -> list[str]:
    """SQuAD's words: in small letters, without punctuation and articles; Chinese characters stand alone, and their
    punctuation goes too."""
    kept = "".join(one for one in one_width(text).lower() if not _is_punctuation(one))
    return [word for word in unspaced_apart(kept).split() if word not in _ARTICLES]


def _is_punctuation(character: str) -> bool:
    return character in string.punctuation or unicodedata.category(character)[0] == "P"
