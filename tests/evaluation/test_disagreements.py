"""The rows on which two models disagree come in an order that hides nothing: the worst first."""

import base64
import io

import numpy as np
from PIL import Image, PngImagePlugin
from support.certain import certain

from lmmpress.data.facts import SplitFacts
from lmmpress.evaluation.comparison import Differing, Said
from lmmpress.evaluation.disagreements import GAINED, LOST, SIDE, Disagreement, Disagreements, worst_rows
from lmmpress.metrics.scale import SHARE_OF_RIGHT, Scale


def facts(*tasks: int) -> SplitFacts:
    names = tuple(f"task {number}" for number in range(max(tasks) + 1))
    of_row = tasks if len(names) > 1 else ()
    return SplitFacts(split="test", rows=len(tasks), digest="0" * 64, tasks=names, task_of_row=of_row)


def test_rows_that_became_wrong_and_rows_that_became_right() -> None:
    before = np.array([True, False, True, True, False])
    after = np.array([True, True, False, False, False])
    found = worst_rows(before, after, facts(*[0] * 5), {"task 0": SHARE_OF_RIGHT})
    assert (found.lost, found.gained) == (2, 1)
    assert (found.lost_rows, found.gained_rows) == ([2, 3], [1])


def test_the_largest_difference_comes_first_whichever_numbers_are_better() -> None:
    scales = {"task 0": Scale("higher", False, 0, 1), "task 1": Scale("lower", False, 0, 9)}
    before, after = np.array([0.5, 0.9, 1.0, 5.0, 2.0]), np.array([0.4, 0.1, 3.0, 1.0, 2.0])
    found = worst_rows(before, after, facts(0, 0, 1, 1, 1), scales)
    assert found.lost_rows == [2, 1, 0]
    assert found.gained_rows == [3]


def test_many_of_one_kind_leave_room_for_the_other() -> None:
    before = np.array([True] * 100 + [False] * 100)
    found = worst_rows(before, ~before, facts(*[0] * 200), {"task 0": SHARE_OF_RIGHT})
    assert (found.lost, found.gained) == (100, 100)
    assert found.lost_rows == list(range(LOST))
    assert found.gained_rows == list(range(100, 100 + GAINED))


def png(comment: str = "", size: tuple[int, int] = (400, 300)) -> bytes:
    written, info = io.BytesIO(), PngImagePlugin.PngInfo()
    info.add_text("Comment", comment)
    Image.new("RGB", size, "red").save(written, "PNG", pnginfo=info)
    return written.getvalue()


def kept(picture: str | None) -> Disagreement:
    said = Said(text="logo", right=True, ended=True, log_probability=None)
    row = Differing(
        kind="lost", line=3, file_name="a.png", task="advert", question="whose?", wanted="logo", a=said, b=said
    )
    return Disagreement(row=row, metric="exact", worth=(1.0, 0.0), picture=picture)


def test_pictures_of_a_file_are_drawn_anew_and_small() -> None:
    told = png("<script>")
    again = Disagreements(rows=9, lost=1, gained=0, shown=(kept(base64.b64encode(told).decode()),)).drawn_anew()
    picture = certain(again.shown[0].row.picture)
    assert b"<script>" in told
    assert b"<script>" not in picture
    assert max(Image.open(io.BytesIO(picture)).size) == SIDE
    assert again.shown[0].picture == base64.b64encode(picture).decode()
    assert again.drawn_anew() == again


def test_what_is_no_picture_is_left_out() -> None:
    text = base64.b64encode(b"<svg onload=alert(1)>").decode()
    found = Disagreements(rows=9, lost=3, gained=0, shown=tuple(map(kept, [text, "no base64!", None]))).drawn_anew()
    assert [one.picture for one in found.shown] == [None] * 3
    assert [one.row.question for one in found.shown] == ["whose?"] * 3
