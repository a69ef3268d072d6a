"""CIDEr-D: how much of what people say of a picture a caption says, by n-grams weighted by how telling they are.

Source: Vedantam et al. 2015, section 4 and CIDEr-D, as COCO's evaluation computes it, but with the words of
`lmmpress.metrics.words` in place of a tokenizer in Java.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from lmmpress.metrics.metric import Answers, Metric
from lmmpress.metrics.words import words

_LONGEST = 4  # words of an n-gram
_SIGMA = 6.0  # words of difference in length after which little is left
_BEST = 10.0

NGram = tuple[str, ...]


def cider() -> Metric:
    """A row is 10 times the mean cosine of the weighted n-grams, n from 1 to 4, of the caption and of each right one.

    An n-gram that stands in the right answers of many rows weighs little: so a row's number depends on the right
    answers of all rows, and with one row it is 0.
    """
    about = "consensus with captions by people (CIDEr-D)"
    return Metric("cider", "text", "higher", (0.0, _BEST), False, about, _scores)


@dataclass(frozen=True)
class _Caption:
    """The weighted n-grams of a caption for each n, the lengths of these vectors, and its number of words."""

    weights: tuple[Mapping[NGram, float], ...]
    norms: tuple[float, ...]
    words: int


def _scores(said: Sequence[str], answers: Answers) -> list[float]:
    right = [[_ngrams(answer) for answer in row] for row in answers]
    rows_with = Counter(chain.from_iterable(set().union(*row) for row in right))

    def weighted(counts: Counter[NGram]) -> _Caption:
        weights: tuple[dict[NGram, float], ...] = tuple({} for _ in range(_LONGEST))
        for ngram, count in counts.items():
            weights[len(ngram) - 1][ngram] = count * (math.log(len(said)) - math.log(max(1, rows_with[ngram])))
        norms = tuple(math.sqrt(sum(weight**2 for weight in of_length.values())) for of_length in weights)
        # COCO's evaluation takes the number of pairs for the length, and so do the numbers that people publish
        pairs = sum(count for ngram, count in counts.items() if len(ngram) == 2)
        return _Caption(weights, norms, pairs)

    found = []
    for text, row in zip(said, right, strict=True):
        caption = weighted(_ngrams(text))
        mean = sum(_similarity(caption, weighted(counts)) for counts in row) / len(row)
        found.append(min(_BEST, _BEST * mean))  # rounding may lead above
    return found


def _ngrams(text: str) -> Counter[NGram]:
    found = words(text)
    return Counter(tuple(found[at : at + n]) for n in range(1, _LONGEST + 1) for at in range(len(found) - n + 1))


def _similarity(caption: _Caption, right: _Caption) -> float:
    """The mean cosine over n. A repeated n-gram counts as often as the right caption has it, and a difference in length
    costs."""
    cosines = 0.0
    for ours, theirs, norm, their_norm in zip(caption.weights, right.weights, caption.norms, right.norms, strict=True):
        if norm and their_norm:
            common = sum(
                min(weight, theirs[ngram]) * theirs[ngram] for ngram, weight in ours.items() if ngram in theirs
            )
            cosines += common / (norm * their_norm)
    return cosines / _LONGEST * math.exp(-((caption.words - right.words) ** 2) / (2 * _SIGMA**2))
