"""Second implementations of the metrics: plainly written, slow, or of other packages. Not for use."""

from collections.abc import Sequence
from functools import cache
from itertools import combinations
from string import punctuation


def edits(one: Sequence[object], other: Sequence[object]) -> int:
    """The least number of insertions, deletions and replacements, by the definition."""

    @cache
    def between(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        replaced = between(i - 1, j - 1) + (one[i - 1] != other[j - 1])
        return min(replaced, between(i - 1, j) + 1, between(i, j - 1) + 1)

    return between(len(one), len(other))


def anls(said: str, answer: str, threshold: float) -> float:
    said, answer = " ".join(said.lower().split()), " ".join(answer.lower().split())
    longer = max(len(said), len(answer))
    similarity = 1 - edits(said, answer) / longer if longer else 1.0
    return similarity if similarity >= threshold else 0.0


def error_rate(said: Sequence[str], answer: Sequence[str]) -> float:
    return edits(said, answer) / len(answer) if answer else float(len(said))


def rouge_l(said: str, answer: str) -> float:
    """By the package rouge-score, with its own way of finding words."""
    from rouge_score.rouge_scorer import RougeScorer

    return float(RougeScorer(["rougeL"]).score(answer, said)["rougeL"].fmeasure)


def longest_common(one: Sequence[str], other: Sequence[str]) -> int:
    """The length of the longest common subsequence: the longest of all subsequences that is one of both."""
    for length in range(min(len(one), len(other)), 0, -1):
        if set(combinations(one, length)) & set(combinations(other, length)):
            return length
    return 0


def cider(said: Sequence[str], answers: Sequence[Sequence[str]]) -> list[float]:
    """By the package pycocoevalcap: texts are words with spaces between."""
    from pycocoevalcap.cider.cider_scorer import CiderScorer

    if not any(answer.split() for row in answers for answer in row):
        return [0.0] * len(said)  # the package fails where there is no word at all
    scorer = CiderScorer()
    for text, row in zip(said, answers, strict=True):
        scorer += (text, list(row))
    return [float(value) for value in scorer.compute_score()[1]]


def token_f1(said: str, answer: str) -> float:
    """As SQuAD's page says it, by lists: each common word is taken out of both."""

    def words(text: str) -> list[str]:
        kept = "".join(" " if one.isspace() else one for one in text.lower() if one not in punctuation)
        return [word for word in kept.split(" ") if word not in ("", "a", "an", "the")]

    found, right = words(said), words(answer)
    if not found or not right:
        return float(found == right)
    left, common = list(right), 0
    for word in found:
        if word in left:
            left.remove(word)
            common += 1
    return 2 * common / (len(found) + len(right))


def vqa(said: str, people: Sequence[str]) -> float:
    """By the definition: leave out one person at a time."""
    of_each = []
    for out in range(len(people)):
        others = [answer for at, answer in enumerate(people) if at != out]
        enough = min(3, len(others))
        same = sum(answer == said for answer in others)
        of_each.append(min(1.0, same / enough) if enough else float(said == people[out]))
    return sum(of_each) / len(of_each)
