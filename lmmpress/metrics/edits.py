"""Metrics that count edits: ANLS, and the error rates of words and characters.

Sources: Biten et al. 2019, the evaluation of ST-VQA and DocVQA; the package jiwer.
"""

import math

from lmmpress.metrics.metric import LONGEST, Metric, best_over_answers
from lmmpress.metrics.words import one_width

_RATE = (0.0, math.inf)


def anls(threshold: float = 0.5) -> Metric:
    """A row is 1 minus the edits of characters over the longer length; 0 where that is below the threshold.

    Case and repeated spaces do not count. ValueError if the threshold is not from 0 to 1.
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold is {threshold:g}; it is from 0 to 1")

    def similarity(said: str, answer: str) -> float:
        from rapidfuzz.distance import Levenshtein

        found, right = _spaced(said).lower()[:LONGEST], _spaced(answer).lower()[:LONGEST]
        longer = max(len(found), len(right))
        close = 1 - Levenshtein.distance(found, right) / longer if longer else 1.0
        return close if close >= threshold else 0.0

    about = f"similarity to a right answer by edits of characters, from {threshold:g} on (ANLS)"
    return Metric(
        "anls", "text", "higher", (0.0, 1.0), False, about, best_over_answers(similarity), package="rapidfuzz"
    )


def wer() -> Metric:
    """A row is the number of wrong, missing and additional words over the number of right ones."""
    about = "word errors for each right word (WER)"
    return Metric("wer", "text", "lower", _RATE, False, about, best_over_answers(_word_errors, min), package="jiwer")


def cer() -> Metric:
    """A row is the number of wrong, missing and additional characters over the number of right ones."""
    about = "character errors for each right character (CER)"
    return Metric(
        "cer", "text", "lower", _RATE, False, about, best_over_answers(_character_errors, min), package="jiwer"
    )


def _word_errors(said: str, answer: str) -> float:
    import jiwer

    found, right = (" ".join(one_width(text).split()[:LONGEST]) for text in (said, answer))
    return float(jiwer.wer(right, found))


def _character_errors(said: str, answer: str) -> float:
    import jiwer

    return float(jiwer.cer(_spaced(answer)[:LONGEST], _spaced(said)[:LONGEST]))


def _spaced(text: str) -> str:
    """A text with single spaces. It may be longer than it was: one character can stand for 18 in NFKC."""
    return " ".join(one_width(text).split())
