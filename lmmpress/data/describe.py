"""Describes a data set from its survey. SQLite counts, so memory holds counters and no rows."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from lmmpress.data.address import shown
from lmmpress.data.common import repeated_pictures, repeated_rows, shared_pictures, shared_rows
from lmmpress.data.containers.file_names import split_of
from lmmpress.data.description import Description, Labels, Pictures, Shared, Spread, Tokens
from lmmpress.data.splitting import ROLES, UNNAMED
from lmmpress.data.survey import Survey
from lmmpress.errors import UserError
from lmmpress.progress import doing

_SEEN = (
    "SELECT DISTINCT pictures.id AS id, sha256, format, width, height FROM shown JOIN good ON good.id = shown.row "
    "JOIN pictures ON pictures.id = picture JOIN looks ON looks.id = pictures.id"
)


def describe(survey: Survey, tokens: Tokens | None = None) -> Description:
    """What is in a data set. Raises UserError if it has neither rows nor faults."""
    with doing(f"counting the rows of {shown(survey.index.folder)}"):
        return _described(survey, tokens)


def _described(survey: Survey, tokens: Tokens | None) -> Description:
    found, where = survey.index.found, shown(survey.index.folder)
    faults = tuple(survey.faults())
    rows = _rows(survey)
    if not rows and not faults:
        raise UserError(f"{where}/{found.files[0]} holds no rows")
    by_task = _lengths(survey, "task, length(answer)", "WHERE answer != ''")
    labels = tuple(_labels(survey))
    pictures, same = tuple(shared_pictures(survey)), tuple(shared_rows(survey))
    return Description(
        data=where,
        form=found.container.name,
        files=len(found.files),
        unread=found.others,
        rows=rows,
        divided=survey.divided,
        unlabelled=int(survey.ask("SELECT count(*) FROM rows WHERE answer = ''")[0][0]),
        questions=spread(_lengths(survey, "'', length(question)").get("", {})),
        answers=spread(sum(by_task.values(), Counter[int]())),
        by_task={task: long for task, lengths in by_task.items() if (long := spread(lengths))},
        tokens=tokens,
        pictures=_pictures(survey),
        shared_pictures=pictures,
        shared_rows=same,
        repeated_pictures=repeated_pictures(survey),
        repeated_rows=repeated_rows(survey),
        labels=labels,
        warnings=tuple(
            [*_of_forms(survey), *_of_splits(survey, rows), *_of_common(pictures, same), *_of_labels(labels)]
        ),
        faults=faults,
    )


def spread(lengths: Mapping[int, int]) -> Spread | None:
    """Median, 99th percentile and maximum of lengths that are counted by length; None if there are none. A percentile
    is the least length that so many of all do not exceed."""
    if not lengths:
        return None
    total = sum(lengths.values())

    def percentile(share: int) -> int:
        left = -(-total * share // 100)  # rounded up
        for length in sorted(lengths):
            left -= lengths[length]
            if left <= 0:
                break
        return length

    return Spread(percentile(50), percentile(99), max(lengths))


def _rows(survey: Survey) -> dict[str, dict[str, int]]:
    rows: dict[str, dict[str, int]] = {}
    question = "SELECT split, task, count(*) FROM rows GROUP BY split, task"
    for split, task, count in survey.each(question):
        rows.setdefault(split, {})[task] = count
    order = {name: number for number, name in enumerate(ROLES)}
    return {split: rows[split] for split in sorted(rows, key=lambda name: (order.get(name, len(order)), name))}


def _lengths(survey: Survey, columns: str, where: str = "") -> dict[str, Counter[int]]:
    """How many rows there are by a name and a length."""
    found: dict[str, Counter[int]] = {}
    for name, length, count in survey.each(f"SELECT {columns}, count(*) FROM rows {where} GROUP BY 1, 2 ORDER BY 1, 2"):
        found.setdefault(name, Counter())[length] = count
    return found


def _labels(survey: Survey) -> Iterable[Labels]:
    question = (
        "SELECT task, split, answer, count(*) FROM rows WHERE answer != '' GROUP BY task, split, answer "
        "ORDER BY task, split, answer"
    )
    kinds: dict[tuple[str, str], tuple[int, int, str, int]] = {}  # rows, answers, the most frequent one and its rows
    for task, split, answer, count in survey.each(question):
        rows, answers, best, most = kinds.get((task, split), (0, 0, "", 0))
        better = (answer, count) if count > most else (best, most)
        kinds[task, split] = rows + count, answers + 1, *better
    for (task, split), (rows, answers, best, most) in kinds.items():
        yield Labels(task, split, rows, answers, best, most / rows)


def _pictures(survey: Survey) -> Pictures | None:
    ((count, contents),) = survey.ask(f"SELECT count(*), count(DISTINCT sha256) FROM ({_SEEN})")
    if not count:
        return None
    formats = dict(survey.each(f"SELECT format, count(*) FROM ({_SEEN}) GROUP BY format ORDER BY 2 DESC, 1"))

    def sides(place: int) -> tuple[int, int]:
        question = f"SELECT width, height FROM ({_SEEN}) ORDER BY width * height, id LIMIT 1 OFFSET ?"
        ((width, height),) = survey.ask(question, [place])
        return width, height

    return Pictures(count, contents, formats, sides(0), sides((count - 1) // 2), sides(count - 1))


def _of_forms(survey: Survey) -> Iterable[str]:
    found = survey.index.found
    if found.others:
        yield f"files of another form ({', '.join(found.others)}) are there too, and are not read"


def _of_splits(survey: Survey, rows: Mapping[str, Any]) -> Iterable[str]:
    """Splits that are empty: all their rows are faulty, a file is named after them, or there are too few rows to divide
    among them."""
    expected = [str(name) for (name,) in survey.ask("SELECT DISTINCT split FROM main.rows ORDER BY 1")]
    if UNNAMED in expected:
        expected = [name for name in expected if name != UNNAMED] + list(ROLES)
    expected += [split for name in survey.index.found.files if (split := split_of(name))]
    for split in dict.fromkeys(expected):
        if split not in rows and (not survey.splits or split in survey.splits):
            yield f"split {split!r} is empty: it has no row without a fault"


def _of_common(pictures: Iterable[Shared], rows: Iterable[Shared]) -> Iterable[str]:
    for one in pictures:
        ((here, there), *_), (first, second) = one.examples, one.splits
        yield (
            f"splits {first!r} and {second!r} share images: {one.count:,}, for instance {here} and {there}; a run that "
            "learns from one and is measured on the other refuses them"
        )
    for one in rows:
        ((here, there), *_), (first, second) = one.examples, one.splits
        yield f"splits {first!r} and {second!r} share rows: {one.count:,}, for instance {here} and {there}"


def _of_labels(labels: Iterable[Labels]) -> Iterable[str]:
    for one in labels:
        if one.answers == 1 and one.rows > 1:
            yield (
                f"all {one.rows:,} rows of task {one.task!r} in split {one.split!r} have one answer, "
                f"{one.most_frequent[:40]!r}: a model that always says it is right"
            )
