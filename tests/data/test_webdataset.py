"""Rows in WebDataset shards: files of a tar that share a name."""

import gzip
import io
import json
import os
import sys
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from datasets.packaged_modules.webdataset.webdataset import WebDataset
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.containers import fault_of, peak_of, raw_of, read_all, refusal, stream_of

from lmmpress.data.containers.container import Held, Record
from lmmpress.data.containers.tar_members import members
from lmmpress.data.containers.webdataset import KEY, WEBDATASET
from lmmpress.errors import UserError

Change = Callable[[tarfile.TarInfo], None]
ROW = {"question": "What is it?", "answer": "a cup", "split": "test"}


def pack(path: Path, files: Iterable[tuple[str, bytes]], form: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:", format=form) as tar:
        for name, raw in files:
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))
    return path.parent


def samples(count: int) -> Iterable[tuple[str, bytes]]:
    for number in range(count):
        yield f"{number:06d}.jpg", b"picture %d" % number
        yield f"{number:06d}.json", json.dumps(ROW).encode()


def test_a_sample_is_a_record(tmp_path: Path) -> None:
    files = [
        ("0001.jpg", b"picture"),
        ("0001.json", json.dumps(ROW).encode()),
        ("0001.txt", "标题\n".encode()),
        ("0001.cls", b"7\n"),
        ("0001.left.png", b"other"),
        ("0001.mp3", b"sound"),
        ("README", b"about"),
        ("._0001.jpg", b"of a Mac"),
    ]
    (record,) = read_all(WEBDATASET, pack(tmp_path / "train-000001.tar", files))
    picture, left = record.values.pop("jpg"), record.values.pop("left.png")
    assert record == Record({KEY: "0001", **ROW, "txt": "标题", "cls": 7}, "train-000001.tar, sample 0001", 1, "train")
    assert isinstance(picture, Held)
    assert picture.name == "train-000001.tar, 0001.jpg"
    assert [raw_of(tmp_path, one) for one in (picture, left)] == [b"picture", b"other"]


def test_shards_are_read_in_order_and_name_their_splits(tmp_path: Path) -> None:
    for name in ("train/10.tar", "train/9.tar", "val-000.tar"):
        pack(tmp_path / name, samples(1))
    read = read_all(WEBDATASET, tmp_path)
    assert [(record.place, record.split) for record in read] == [
        ("train/9.tar, sample 000000", "train"),
        ("train/10.tar, sample 000000", "train"),
        ("val-000.tar, sample 000000", "validation"),
    ]
    assert len({held.name for record in read if isinstance(held := record.values["jpg"], Held)}) == 3


NAMES = st.text(st.sampled_from("ab/._-é字"), min_size=1, max_size=150).filter(
    lambda name: not name.startswith("/") and ".." not in name.split("/") and name.strip("./") and name[-1] != "/"
)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    files=st.lists(st.tuples(NAMES, st.binary(max_size=600)), max_size=6),
    form=st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
    twice=st.booleans(),
)
@example(files=[("a" * 120 + "/" + "b" * 140 + ".jpg", b"x")], form=tarfile.GNU_FORMAT, twice=True)
def test_members_are_those_that_tarfile_finds(
    tmp_path: Path, files: list[tuple[str, bytes]], form: int, twice: bool
) -> None:
    path = tmp_path / "a.tar"
    pack(path, files, form)
    if twice:  # cat a.tar a.tar
        path.write_bytes(path.read_bytes() * 2)
    with tarfile.open(path, "r:", ignore_zeros=True) as tar:
        expected = [(info.name, info.offset_data, info.size) for info in tar]
    with path.open("rb") as file:
        found = [(one.name, one.offset, one.size) for one in members(file, path)]
    assert [one[1:] for one in found] == [one[1:] for one in expected]
    assert [one[0] for one in found] == [name.removeprefix("./") for name, _, _ in expected] or any(
        "./" in name for name, _, _ in expected
    )


def test_samples_are_those_of_the_hubs_reader(tmp_path: Path) -> None:
    files = [
        *(("a/1.jpg", b"p"), ("a/1.txt", b"one"), ("a/1.cls", b"3")),
        *(("a/2.seg.png", b"q"), ("a/2.json", b'{"x": [1, null]}')),
        ("b.c/1.txt", b"in a folder with a dot"),
    ]
    folder = pack(tmp_path / "a.tar", files)
    hubs = list(WebDataset._get_pipeline_from_tar("a.tar", ((name, io.BytesIO(raw)) for name, raw in files)))
    ours = [
        {key: raw_of(folder, value) if isinstance(value, Held) else value for key, value in record.values.items()}
        for record in read_all(WEBDATASET, folder)
    ]
    pictures = {"jpg", "seg.png"}
    for one, other in zip(ours, hubs, strict=True):
        del other["__url__"]
        other |= other.pop("json", {})
        other |= {name: other[name] for name in pictures & other.keys()}
        assert one == other


def link(info: tarfile.TarInfo) -> None:
    info.type, info.linkname, info.size = tarfile.SYMTYPE, "/etc/passwd", 0


def device(info: tarfile.TarInfo) -> None:
    info.type, info.size = tarfile.CHRTYPE, 0


def sparse(info: tarfile.TarInfo) -> None:
    info.type = tarfile.GNUTYPE_SPARSE


def posix_sparse(info: tarfile.TarInfo) -> None:
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}


def volume(info: tarfile.TarInfo) -> None:
    info.type = b"V"


def long_header(info: tarfile.TarInfo) -> None:
    info.pax_headers = {"comment": "x" * (2 << 20)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (link, "a.tar, 1.jpg is a link; pack the file itself"),
        (device, "a.tar, 1.jpg is a device; leave it out"),
        (sparse, "a.tar, 1.jpg is a sparse file; pack it without --sparse"),
        (posix_sparse, "is followed by a sparse file; pack it without --sparse"),
        (volume, "a.tar, 1.jpg is of an unknown type; leave it out"),
        (long_header, "has a header of 2,[0-9,]+ bytes, more than 1,048,576; pack it anew"),
    ],
)
def test_what_is_no_file_is_refused(tmp_path: Path, change: Change, message: str) -> None:
    with tarfile.open(tmp_path / "a.tar", "w:") as tar:
        info = tarfile.TarInfo("1.jpg")
        info.size = 512
        change(info)
        tar.addfile(info, io.BytesIO(bytes(512)) if info.size else None)
    with pytest.raises(UserError, match=message):
        read_all(WEBDATASET, tmp_path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["/etc/1.jpg"], "a.tar, /etc/1.jpg points outside of the tar"),
        (["a/../../1.jpg"], "points outside of the tar"),
        (["1.jpg", "2.jpg", "1.json"], "the files of sample '1' do not follow each other; pack it sorted by name"),
        (["1.jpg", "1.JPG"], "a.tar, 1.JPG: sample '1' has two files .jpg; keep one"),
        (["1.json", "1.jsn"], "sample '1' has 'answer' twice; rename one"),
        (["1.json", "1.text"], None),
        (["1.cls"], "a.tar, sample 1: 1.cls is no whole number; write it as digits, or as .txt"),
    ],
)
def test_samples_that_are_wrong_are_refused(tmp_path: Path, files: list[str], message: str | None) -> None:
    raw = json.dumps(ROW).encode()
    folder = pack(tmp_path / "d" / "a.tar", [(name, raw) for name in files])
    if message is None:
        assert len(read_all(WEBDATASET, folder)) == 1
    else:
        assert message in refusal(WEBDATASET, folder)


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        ("1.txt", b"\xff\xfe", "1.txt is not UTF-8"),
        ("1.json", b"[1]", "1.json: expected a JSON object, but this is a list"),
        ("1.json", b"{", "1.json: not JSON"),
        ("1.json", b'{"a": NaN}', "NaN, which is no JSON number"),
        ("1.json", b'{"a": 1, "a": 2}', "it has the key 'a' twice"),
        ("1.json", b'{"a":' * 5000, "1.json: not"),
        ("1.txt", b"x" * ((8 << 20) + 1), "the texts of a sample have more than 8,388,608 bytes; shorten them"),
        ("1.txt", b"\xef\xbb\xbfa\r\n", None),
    ],
)
def test_texts_that_are_wrong_are_refused(tmp_path: Path, name: str, raw: bytes, message: str | None) -> None:
    folder = pack(tmp_path / "d" / "a.tar", [(name, raw)])
    if message is None:
        assert read_all(WEBDATASET, folder)[0].values["txt"] == "a"
    else:
        assert message in refusal(WEBDATASET, folder)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "a.tar is empty; fetch it again"),
        (
            gzip.compress(b"x", mtime=0),
            "a.tar is compressed by gzip; its pictures are read in place, so unpack it (gunzip)",
        ),
        (b"version https://git-lfs.github.com/spec/v1\n", "run `git lfs pull` there"),
        (b"x" * 2000, "a.tar is no tar, or damaged at byte 0; fetch it again"),
    ],
)
def test_files_that_are_no_tars_are_refused(tmp_path: Path, raw: bytes, message: str) -> None:
    (tmp_path / "a.tar").write_bytes(raw)
    assert message in refusal(WEBDATASET, tmp_path)


def test_compressed_shards_are_recognised(tmp_path: Path) -> None:
    raw = (pack(tmp_path / "d" / "a.tar", samples(1)) / "a.tar").read_bytes()
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(raw))
    assert WEBDATASET.files(["a.tar.gz", "b.txt"]) == ["a.tar.gz"]
    assert "unpack it (gunzip)" in refusal(WEBDATASET, tmp_path)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_cut_shard_gives_its_first_samples_and_one_line(tmp_path: Path, data: st.DataObject) -> None:
    raw = (pack(tmp_path / "whole" / "a.tar", samples(5)) / "a.tar").read_bytes()
    last = len(raw.rstrip(b"\0"))  # behind it stand only zeros
    (tmp_path / "cut").mkdir(exist_ok=True)
    (tmp_path / "cut" / "a.tar").write_bytes(raw[: data.draw(st.integers(0, last))])
    whole, found = read_all(WEBDATASET, tmp_path / "whole"), []
    with pytest.raises(UserError) as caught:
        for record in stream_of(WEBDATASET, tmp_path / "cut"):
            found.append(record)
    assert found == whole[: len(found)]
    assert len(caught.value.lines) == 1


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(flips=st.lists(st.tuples(st.integers(0, 10_239), st.integers(0, 255)), min_size=1, max_size=4))
@example(flips=[(124, 0x80)])  # a size of 2**88 bytes
@example(flips=[(124, 0xFF)])  # a size below nothing
@example(flips=[(148, 0x80)])
def test_damaged_shards_give_one_line_or_records(tmp_path: Path, flips: list[tuple[int, int]]) -> None:
    raw = bytearray((pack(tmp_path / "a.tar", samples(3)) / "a.tar").read_bytes())
    for place, byte in flips:
        raw[place] = byte
    if flips[0][0] < 148:  # a header that is hostile has the right checksum
        header = raw[:148] + b" " * 8 + raw[156:512]
        raw[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "a.tar").write_bytes(raw)
    assert len(fault_of(WEBDATASET, tmp_path)) <= 1


def test_a_picture_may_be_large_but_not_too_large(tmp_path: Path) -> None:
    """The file is sparse on the disk: its end is far behind its bytes."""
    info = tarfile.TarInfo("1.jpg")
    for size, refused in ((512 << 20, False), ((512 << 20) + 1, True)):
        info.size = size
        with (tmp_path / "a.tar").open("wb") as file:
            file.write(info.tobuf())
            file.truncate(512 + size + (-size) % 512 + 1024)
        if refused:
            assert "1.jpg has 536,870,913 bytes, more than 536,870,912" in refusal(WEBDATASET, tmp_path)
        else:
            assert len(read_all(WEBDATASET, tmp_path)) == 1


def test_memory_does_not_grow_with_the_bytes_of_a_shard(tmp_path: Path) -> None:
    """What is kept of a sample is the hash of its key."""
    peaks = []
    for count in (200, 2000):
        pack(tmp_path / str(count) / "a.tar", samples(count))
        peaks.append(peak_of(WEBDATASET, tmp_path / str(count)))
    kept = sys.getsizeof(set(range(2000))) + 2000 * sys.getsizeof(1 << 60)
    assert peaks[1] < peaks[0] + 1.5 * kept


def test_a_tar_of_nothing_but_zeros_is_not_read_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "a.tar").touch()
    os.truncate(tmp_path / "a.tar", 1 << 40)
    assert "holds more than 67,108,864 zeros" in refusal(WEBDATASET, tmp_path)
