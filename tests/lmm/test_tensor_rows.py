"""Rows of tensors in files are those of the tensors."""

import mmap
import os
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from lmmpress.lmm.tensor_rows import TensorRows, new_rows, open_rows, save_rows, temporary_rows

DTYPES = [torch.float32, torch.bfloat16, torch.int32]


def made(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    return torch.randint(-99, 99, shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def in_file(values: torch.Tensor) -> TensorRows:
    rows = temporary_rows(tuple(values.shape), values.dtype)
    rows.write(range(len(values)), values)
    return rows


@pytest.mark.parametrize("dtype", DTYPES)
@given(numbers=st.lists(st.integers(0, 8), max_size=20))
def test_rows_are_read_in_the_order_of_their_numbers(dtype: torch.dtype, numbers: list[int]) -> None:
    values = made(dtype, 9, 2, 3)
    assert torch.equal(in_file(values)[numbers], values[numbers])


@given(order=st.permutations(range(9)), at_once=st.integers(1, 9))
def test_rows_are_written_in_any_order(order: list[int], at_once: int) -> None:
    values = made(torch.float32, 9, 4)
    rows = temporary_rows((9, 4), torch.float32)
    for begin in range(0, 9, at_once):
        some = order[begin : begin + at_once]
        rows.write(some, values[some])
    assert torch.equal(rows.part(0, 9), values)


@pytest.mark.parametrize("dtype", DTYPES)
def test_files_are_those_of_safetensors(dtype: torch.dtype, tmp_path: Path) -> None:
    values, one, none = made(dtype, 7, 3), made(torch.int32, 1), made(dtype, 0, 5)
    save_rows(tmp_path / "ours", {"values": in_file(values), "one": one, "none": none})
    loaded = load_file(tmp_path / "ours")
    assert torch.equal(loaded["values"], values)
    assert torch.equal(loaded["one"], one)
    assert loaded["none"].shape == (0, 5)
    save_file({"values": values, "one": one}, tmp_path / "theirs", metadata={"format": "pt"})
    opened = open_rows(tmp_path / "theirs")
    assert opened.keys() == {"values", "one"}
    assert torch.equal(opened["values"].part(2, 5), values[2:5])
    assert opened["values"].shape == (7, 3)


def test_large_tensors_are_copied_part_by_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmmpress.lmm.tensor_rows._COPIED_AT_ONCE", 25)
    values = made(torch.float32, 10, 3)
    save_rows(tmp_path / "file", {"values": in_file(values)})
    assert torch.equal(load_file(tmp_path / "file")["values"], values)


def test_rows_can_be_read_when_their_file_is_removed(tmp_path: Path) -> None:
    values = made(torch.float32, 4, 2)
    save_rows(tmp_path / "file", {"values": values})
    rows = open_rows(tmp_path / "file")["values"]
    (tmp_path / "file").unlink()
    assert torch.equal(rows[[3, 0]], values[[3, 0]])


@pytest.mark.parametrize("left", [0, 4, 20, 90])
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, left: int) -> None:
    path = tmp_path / "file"
    save_rows(path, {"values": made(torch.float32, 4, 2)})
    os.truncate(path, left)
    with pytest.raises(ValueError, match=r"is no safetensors file|is cut short"):
        open_rows(path)


def test_a_file_that_is_cut_while_it_is_read_is_no_endless_loop(tmp_path: Path) -> None:
    path = tmp_path / "file"
    save_rows(path, {"values": made(torch.float32, 4, 2)})
    rows = open_rows(path)["values"]
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(OSError, match="cut short"):
        rows.part(0, 4)


def test_rows_can_be_written_into_a_file_of_safetensors(tmp_path: Path) -> None:
    """So what is computed need not be copied."""
    values = made(torch.bfloat16, 5, 3)
    rows = new_rows(tmp_path / "file", "values", (5, 3), torch.bfloat16)
    rows.write([4, 0, 2], values[[4, 0, 2]])
    rows.write([1, 3], values[[1, 3]])
    assert torch.equal(load_file(tmp_path / "file")["values"], values)
    (tmp_path / "file").unlink()
    assert torch.equal(rows.part(0, 5), values)


def test_no_more_stays_in_memory_than_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first rows may stay; of what is read behind them the system is told that it need not keep it, in whole
    pages."""
    values = made(torch.int32, 8, mmap.PAGESIZE // 4)  # a page each
    rows, gone = in_file(values), list[tuple[int, int]]()
    monkeypatch.setattr("os.posix_fadvise", lambda _, begin, size, __: gone.append((begin, begin + size)))
    rows[range(8)]
    assert not gone, "without a limit the system decides"
    assert rows.keep(3 * mmap.PAGESIZE) == 3 * mmap.PAGESIZE
    assert torch.equal(rows[[0, 1, 2]], values[:3])
    assert torch.equal(rows[[6, 3, 4]], values[[6, 3, 4]])
    assert [(begin // mmap.PAGESIZE, end // mmap.PAGESIZE) for begin, end in gone] == [(3, 9), (6, 8), (3, 6)]
    assert rows.keep(1 << 40) == 8 * mmap.PAGESIZE, "what is left over of a limit is for others"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no disk is full here")
def test_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    values = made(torch.float32, 4, 2)
    with pytest.raises(OSError, match="No space left") as raised:
        save_rows(Path("/dev/full"), {"values": values})
    assert raised.value.filename == "/dev/full"
    monkeypatch.setattr("tempfile.TemporaryFile", lambda: Path("/dev/full").open("r+b", buffering=0))  # noqa: SIM115
    with pytest.raises(OSError, match="No space left") as raised:
        in_file(values)
    assert raised.value.filename == "/dev/full"


def test_of_a_temporary_file_the_folder_is_named() -> None:
    with pytest.raises(OSError, match="cut short") as raised:
        temporary_rows((2, 3), torch.float32).part(0, 2)
    assert raised.value.filename == tempfile.gettempdir()
