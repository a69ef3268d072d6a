"""VQA's soft accuracy: an answer is right as far as people give it too.

Source: Antol et al. 2015; the processing of answers as https://visualqa.org/evaluation.html describes it.
"""

import re
from collections import Counter
from collections.abc import Sequence

from lmmpress.metrics.metric import Answers, Metric
from lmmpress.metrics.words import NUMBER_WORDS

_ENOUGH = 3
"""People of the others who give an answer that is fully right."""

_ARTICLES = frozenset(("a", "an", "the"))
_DIGITS = {"none": "0"} | {word: str(number) for number, word in enumerate(NUMBER_WORDS)}
_DECIMAL_COMMA = re.compile(r"(?<=\d),(?=\d)")
_PERIOD = re.compile(r"\.(?!\d)")
_PUNCTUATION = re.compile(r'[;/\[\]"{}()=+\\_\-<>@`,?!]')  # all but apostrophes, colons and signs that are no marks


def _contractions() -> dict[str, str]:
    """English contractions by what they are without apostrophes, except those that are another word then (we'll)."""
    not_ = "ai are ca could did does do had has have is might must need ought sha should was were wo would"
    have = "could i might must not should they we what where who would you"
    will = "how it somebody someone something they what who why you"
    are = "there they what why you"
    is_ = "he how somebody someone that there what when where who why"
    would = "he how it someone something there they where who you"
    parts = {"n't": not_, "'ve": have, "'ll": will, "'re": are, "'s": is_, "'d": would}
    written = [stem + end for end, stems in parts.items() for stem in stems.split()]
    return {one.replace("'", ""): one for one in [*written, "i'm", "ma'am", "o'clock", "'twas", "y'all"]}


_CONTRACTIONS = _contractions()


def vqa() -> Metric:
    """A row is the mean over all people of min(1, m / 3), where m of the other people give the model's answer.

    With ten people that is the official number. Of n people below four, all n - 1 others are enough in place of 3; one
    person's answer is right or wrong.
    """
    about = "agreement with the answers of several people (VQA)"
    return Metric("vqa", "text", "higher", (0.0, 1.0), False, about, _scores)


def processed(answer: str) -> str:
    """An answer in the form in which answers are compared: small letters, digits for number words, no articles, no
    punctuation except apostrophes, colons and decimal points, and contractions with their apostrophes."""
    text = _PERIOD.sub("", _DECIMAL_COMMA.sub("", answer.lower()))
    words = [_DIGITS.get(word, word) for word in _PUNCTUATION.sub(" ", text).split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def _scores(said: Sequence[str], answers: Answers) -> list[float]:
    return [_of_row(processed(text), Counter(map(processed, row))) for text, row in zip(said, answers, strict=True)]


def _of_row(said: str, given: Counter[str]) -> float:
    """`given` counts the answers of people. Whoever gave the model's answer sees one person less who gives it too."""
    people, same = given.total(), given[said]
    if people == 1:
        return float(same)
    enough = min(_ENOUGH, people - 1)
    return (same * min(enough, same - 1) + (people - same) * min(enough, same)) / (people * enough) if same else 0.0
