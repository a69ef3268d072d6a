"""The metrics of texts: each agrees with a second implementation, and has the properties that people expect."""

import math
import string
import subprocess
import sys
from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support import second_metrics as second

from lmmpress.metrics import Metric, metric_named, metric_names, score_rows
from lmmpress.metrics.vqa import processed
from lmmpress.metrics.words import folded, same_writing, words

TRIED = settings(deadline=None, max_examples=60)
FROM_TEXT = [name for name in metric_names() if metric_named(name).needs == "text"]
OF_ONE_ANSWER = [name for name in FROM_TEXT if name not in ("vqa", "cider")]

ENGLISH = st.text(string.ascii_letters + string.digits + string.punctuation + " \t\n", max_size=30)
SENTENCES = st.lists(st.sampled_from(["a", "the", "cat", "dog", "sat", "on", "mat", "red"]), max_size=8).map(" ".join)
ANY = st.text(max_size=30)
TEXTS = st.one_of(ENGLISH, SENTENCES, ANY, st.text("北京大学，。 猫a1.", max_size=8))


def score(name: str, said: str, *answers: str, **parameters: float) -> float:
    (value,) = score_rows(metric_named(name, parameters), [said], [answers])
    return value


# what all of them have


@pytest.mark.parametrize("name", FROM_TEXT)
@TRIED
@given(rows=st.lists(st.tuples(TEXTS, st.lists(TEXTS, min_size=1, max_size=4)), max_size=4))
def test_each_row_has_a_number_within_the_bounds(name: str, rows: list[tuple[str, list[str]]]) -> None:
    metric = metric_named(name)
    values = score_rows(metric, [said for said, _ in rows], [answers for _, answers in rows])  # checks bounds itself
    assert len(values) == len(rows)
    assert all(math.isfinite(value) for value in values)


@pytest.mark.parametrize("name", [name for name in FROM_TEXT if name not in ("cider", "numeric")])
@TRIED
@given(text=TEXTS)
def test_a_right_answer_has_the_best_number(name: str, text: str) -> None:
    metric = metric_named(name)
    if name == "rouge_l" and not words(text):
        assert score(name, text, text) == 0, "nothing is in common, as rouge-score has it"
    else:
        assert score(name, text, text) == pytest.approx(metric.best)


@pytest.mark.parametrize("name", OF_ONE_ANSWER)
@TRIED
@given(said=TEXTS, answers=st.lists(TEXTS, min_size=1, max_size=3), more=TEXTS)
def test_the_best_over_answers_counts(name: str, said: str, answers: list[str], more: str) -> None:
    metric = metric_named(name)
    each = [score(name, said, answer) for answer in [*answers, more]]
    assert score(name, said, *answers, more) == (max(each) if metric.better == "higher" else min(each))
    assert metric.loss(score(name, said, *answers), score(name, said, *answers, more)) <= 0, "more answers never harm"


@pytest.mark.parametrize("name", ["normalised", "token_f1", "rouge_l", "anls"])
@TRIED
@given(one=TEXTS, other=TEXTS)
def test_it_is_symmetric(name: str, one: str, other: str) -> None:
    assert score(name, one, other) == pytest.approx(score(name, other, one))


@pytest.mark.parametrize("name", [name for name in FROM_TEXT if name != "cider"])
@TRIED
@given(rows=st.lists(st.tuples(TEXTS, TEXTS), min_size=2, max_size=4))
def test_a_row_does_not_depend_on_others(name: str, rows: list[tuple[str, str]]) -> None:
    together = score_rows(metric_named(name), [said for said, _ in rows], [[answer] for _, answer in rows])
    assert together == [score(name, said, answer) for said, answer in rows]


UNITS = ("a ", "北", "\u0315\u0300", "\u0f81", "ﷺ", "'", "1,", "-", "1e", "零", "一万", "百分之", "$")


@pytest.mark.parametrize("name", FROM_TEXT)
def test_a_million_characters_are_read_to_their_limit(name: str) -> None:
    """Beyond it a text does not count. What takes more than the product of two such lengths does not end here."""
    for unit in UNITS:
        long = unit * (1_000_000 // len(unit))
        if name in OF_ONE_ANSWER:
            assert score(name, long, long) == score(name, long, long + "x") == score(name, long + "x", long), unit
        else:
            score(name, long, long + "x")


# each against another


@TRIED
@given(said=ENGLISH, answer=ENGLISH)
@example("don't", "don t")
@example("snake_case 3.5", "snake case 3 5")
def test_rouge_l_is_that_of_rouge_score(said: str, answer: str) -> None:
    assert score("rouge_l", said, answer) == second.rouge_l(said, answer)


@TRIED
@given(said=SENTENCES, answer=SENTENCES)
def test_rouge_l_is_by_its_definition(said: str, answer: str) -> None:
    found, right = said.split(), answer.split()
    common = second.longest_common(found, right)
    assert score("rouge_l", said, answer) == pytest.approx(2 * common / max(1, len(found) + len(right)))
    assert second.rouge_l(said, answer) == score("rouge_l", said, answer)


@TRIED
@given(rows=st.lists(st.tuples(SENTENCES, st.lists(SENTENCES, min_size=1, max_size=3)), min_size=1, max_size=5))
def test_cider_is_that_of_coco(rows: list[tuple[str, list[str]]]) -> None:
    said, answers = [text for text, _ in rows], [row for _, row in rows]
    expected = second.cider(said, answers)
    assert score_rows(metric_named("cider"), said, answers) == pytest.approx(expected, abs=1e-9)


def test_cider_of_chinese_is_that_of_its_characters() -> None:
    said, answers = ["一只猫坐着", "两只狗跑了"], [["一只猫，坐着。", "猫坐着"], ["狗跑了"]]
    spaced = [" ".join(text) for text in said], [[" ".join(words(text)) for text in row] for row in answers]
    assert score_rows(metric_named("cider"), said, answers) == pytest.approx(second.cider(*spaced))


@TRIED
@given(said=ENGLISH, answer=ENGLISH)
def test_token_f1_is_that_of_squad(said: str, answer: str) -> None:
    assert score("token_f1", said, answer) == pytest.approx(second.token_f1(said, answer))


@TRIED
@given(said=ENGLISH, answer=ENGLISH, threshold=st.sampled_from([0.0, 0.5, 0.8, 1.0]))
def test_anls_is_by_its_definition(said: str, answer: str, threshold: float) -> None:
    assert score("anls", said, answer, threshold=threshold) == pytest.approx(second.anls(said, answer, threshold))


@TRIED
@given(said=st.one_of(SENTENCES, ENGLISH), answer=st.one_of(SENTENCES, ENGLISH))
def test_error_rates_are_by_their_definition(said: str, answer: str) -> None:
    assert score("wer", said, answer) == pytest.approx(second.error_rate(said.split(), answer.split()))
    found, right = " ".join(said.split()), " ".join(answer.split())
    assert score("cer", said, answer) == pytest.approx(second.error_rate(found, right))


@TRIED
@given(said=st.sampled_from("xyz"), people=st.lists(st.sampled_from("xyz"), min_size=1, max_size=12))
def test_vqa_leaves_out_one_person_at_a_time(said: str, people: list[str]) -> None:
    assert score("vqa", said, *people) == pytest.approx(second.vqa(said, people))


@TRIED
@given(same=st.integers(0, 10))
def test_vqa_of_ten_people_is_the_official_number(same: int) -> None:
    people = ["x"] * same + ["y"] * (10 - same)
    assert score("vqa", "x", *people) == pytest.approx(min(1, same * 0.3))


@TRIED
@given(said=TEXTS, answer=TEXTS)
def test_contains_finds_words_one_after_the_other(said: str, answer: str) -> None:
    found, right = same_writing(said), same_writing(answer)
    runs = [found[at : at + len(right)] for at in range(len(found) - len(right) + 1)]
    assert score("contains", said, answer) == (right in runs if right else not found)


# how texts are made alike


@pytest.mark.parametrize(
    ("answer", "form"),
    [
        ("The Dog", "dog"),
        ("dont", "don't"),
        ("Ive", "i've"),
        ("girl's", "girl's"),
        ("2:50 pm", "2:50 pm"),
        ("100,978", "100978"),
        ("cats, dogs", "cats dogs"),
        ("3.5", "3.5"),
        ("Mr. T.", "mr t"),
        ("two-three", "2 3"),
        ("none", "0"),
        ("what?!", "what"),
        ("well", "well"),
    ],
)
def test_answers_of_vqa_are_processed_as_its_page_says(answer: str, form: str) -> None:
    assert processed(answer) == form


@TRIED
@given(text=TEXTS)
def test_case_and_width_do_not_matter(text: str) -> None:
    wide = "".join(chr(ord(one) + 0xFEE0) if "!" <= one <= "~" else one for one in text)
    assert same_writing(wide) == same_writing(text)
    assert words(wide) == words(text)
    assert folded(folded(text)) == folded(text)


@TRIED
@given(words_of=st.lists(st.text(string.ascii_lowercase + "北京", min_size=1, max_size=4), min_size=1, max_size=5))
def test_punctuation_and_spaces_do_not_matter(words_of: Sequence[str]) -> None:
    plain = same_writing(" ".join(words_of))
    for between in ("  ", "\n", ", ", "，", "。", " - ", "/", "…", "、"):
        assert same_writing(between.join(words_of)) == plain
    assert same_writing("“" + " ".join(words_of).upper() + "！”") == plain


def test_half_width_kana_and_marks_are_one_word_each() -> None:
    assert words("ｶﾞ") == ["ガ"]
    assert words("हिन्दी") == ["हिन्दी"]
    assert words("GPU显卡") == ["gpu", "显", "卡"]


@TRIED
@given(text=st.text(string.printable, max_size=30))
def test_words_of_english_are_those_of_rouge_score(text: str) -> None:
    from rouge_score.tokenize import tokenize

    assert words(text) == tokenize(text, None)


def test_heavy_packages_wait_until_a_metric_scores() -> None:
    script = "import sys; import lmmpress.plan; print(*{'torch', 'rapidfuzz', 'jiwer', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, encoding="utf-8")
    assert done.stdout.split() == []


def test_a_metric_says_how_much_worse_a_model_is() -> None:
    higher, lower = metric_named("rouge_l"), metric_named("cer")
    assert (higher.best, higher.loss(0.5, 0.25)) == (1.0, 0.25)
    assert (lower.best, lower.loss(0.25, 0.5)) == (0.0, 0.25)
    assert isinstance(higher, Metric)
