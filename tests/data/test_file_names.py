"""The names of a container's files say their order and their splits."""

from pathlib import Path

import pytest
from datasets.data_files import get_data_patterns
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from lmmpress.data.containers.file_names import natural, split_of, with_ending

WORDS = (
    *("train", "training", "validation", "valid", "dev", "val", "test", "testing", "eval", "evaluation"),
    *("data", "ads", "latest", "developer", "Train", "part", "000"),
)
PARTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).flatmap(
    lambda words: st.sampled_from("-_. 0").map(lambda between: between.join(words))
)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train-00000-of-00002.parquet", "train"),
        ("data/test-00001-of-00002.parquet", "test"),
        ("data/val-00000-of-00001-3fe1a2.parquet", "validation"),
        ("gate-00000-of-00001.parquet", "gate"),
        ("data/train.clean-00000-of-00001.parquet", "train.clean"),
        ("train/000.tar", "train"),
        ("ads/dev/shard-000001.tar", "validation"),
        ("train-000001.tar", "train"),
        ("my_test_file.parquet", "test"),
        ("score/000.tar", "score"),
        ("distill-000.tar", "distill"),
        ("shard-000001.tar", None),
        ("latest.parquet", None),
        ("test-and-train.parquet", None),
    ],
)
def test_splits_of_usual_names(name: str, split: str | None) -> None:
    assert split_of(name) == split


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(folders=st.lists(PARTS, max_size=2), own=PARTS)
def test_splits_are_those_of_the_hub(tmp_path_factory: pytest.TempPathFactory, folders: list[str], own: str) -> None:
    assume(not any(folder.startswith((".", "__")) for folder in (*folders, own)))
    root = tmp_path_factory.mktemp("hub")
    path = root.joinpath(*folders, f"{own}.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    hubs = get_data_patterns(str(root))
    assume(len(hubs) == 1)  # the hub puts a file whose name has two splits into both
    (split,) = hubs
    assert split_of(path.relative_to(root).as_posix()) == (None if hubs[split] == ["**"] else str(split))


def test_files_are_read_in_natural_order() -> None:
    names = [f"shard-{number}.tar" for number in range(12)]
    assert sorted(sorted(names), key=natural) == names


@given(st.lists(st.text("a01-9/", max_size=8)))
def test_the_order_is_total(names: list[str]) -> None:
    ordered = sorted(names, key=natural)
    assert sorted(reversed(ordered), key=natural) == ordered or len({*map(natural, names)}) < len({*names})


def test_hidden_files_hold_no_rows() -> None:
    names = ["a.tar", ".cache/b.tar", "__MACOSX/c.tar", "d/._e.tar", "F.TAR", "g.tar.md"]
    assert with_ending(names, ".tar") == ["F.TAR", "a.tar"]


def test_a_name_of_many_digits_is_a_name(tmp_path: Path) -> None:
    assert with_ending([f"{'9' * 250}.tar"], ".tar")
