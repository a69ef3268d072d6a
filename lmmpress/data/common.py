"""What the splits of a data set have in common, and what one of them has more than once."""

from collections import Counter
from collections.abc import Iterator
from itertools import combinations, groupby

from lmmpress.data.description import Shared
from lmmpress.data.survey import Survey

_EXAMPLES = 20  # names that are kept of what two splits share

_PICTURES = "FROM shown JOIN good ON good.id = shown.row JOIN pictures ON pictures.id = picture"
# rows are the same if their texts and the contents of their pictures are
_ROWS = """
SELECT id, split, question, answer, json_extract(row, '$.before') AS before, json_extract(row, '$.system') AS system,
    (SELECT group_concat(sha256) FROM (
        SELECT sha256 FROM shown JOIN pictures ON pictures.id = picture WHERE shown.row = rows.id ORDER BY place
    )) AS seen FROM rows
"""
_CONTENT = "question, answer, before, system, seen"


def shared_pictures(survey: Survey) -> Iterator[Shared]:
    """Pictures with the same bytes in two splits, with their names in both."""
    question = f"SELECT sha256, split, min(name) {_PICTURES} GROUP BY sha256, split ORDER BY sha256, split"
    return _shared((content, split, name) for content, split, name in survey.each(question))


def shared_rows(survey: Survey) -> Iterator[Shared]:
    """Rows with the same texts and pictures in two splits, with their places in both."""
    question = f"SELECT {_CONTENT}, split, min(id) FROM ({_ROWS}) GROUP BY {_CONTENT}, split ORDER BY {_CONTENT}, split"
    for one in _shared((tuple(content), split, number) for *content, split, number in survey.each(question)):
        yield Shared(one.splits, one.count, tuple((_place(survey, a), _place(survey, b)) for a, b in one.examples))


def repeated_pictures(survey: Survey) -> dict[str, int]:
    """How many of a split's pictures have the same bytes as another one of it."""
    question = f"SELECT split, count(DISTINCT picture) - count(DISTINCT sha256) {_PICTURES} GROUP BY split"
    return {split: count for split, count in survey.each(question) if count}


def repeated_rows(survey: Survey) -> dict[str, int]:
    """How many of a split's rows are the same as another one of it."""
    each = f"SELECT split, count(*) - 1 AS more FROM ({_ROWS}) GROUP BY {_CONTENT}, split"
    return {split: count for split, count in survey.each(f"SELECT split, sum(more) FROM ({each}) GROUP BY 1") if count}


def _shared(found: Iterator[tuple[object, str, str]]) -> Iterator[Shared]:
    """What is there in two splits, of contents with splits and names that are ordered by content and split."""
    counts: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for _, same in groupby(found, lambda one: one[0]):
        for (_, first, here), (_, second, there) in combinations(same, 2):
            pair = first, second
            counts[pair] += 1
            if counts[pair] <= _EXAMPLES:
                examples.setdefault(pair, []).append((here, there))
    for pair, count in sorted(counts.items()):
        yield Shared(pair, count, tuple(examples[pair]))


def _place(survey: Survey, number: object) -> str:
    return str(survey.ask("SELECT json_extract(row, '$.place') FROM rows WHERE id = ?", [number])[0][0])
