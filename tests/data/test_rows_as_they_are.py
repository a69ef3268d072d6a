"""Text and pictures are read exactly: nothing is silently replaced, clipped or rotated."""

import contextlib
import hashlib
import io
import json
import os
import socket
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from lmmpress.data import open_image, open_picture, read_split, usual_splits
from lmmpress.data.leaks import check_leak
from lmmpress.data.pictures import as_rgb, is_plain, picture_of
from lmmpress.data.text import likely_encoding
from lmmpress.errors import UserError

ROW = {"file_name": "a.png", "question": "q", "answer": "a", "task": "t", "split": "test"}
TEXT = {key: value for key, value in ROW.items() if key != "file_name"}
GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)


def data_set(folder: Path, *rows: dict, raw: bytes | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    written = "\n".join(json.dumps(row) for row in rows).encode() if raw is None else raw
    (folder / "metadata.jsonl").write_bytes(written)
    return folder


def fault(folder: Path, split: str = "test") -> str:
    with pytest.raises(UserError) as told:
        read_split(folder, split)
    (line,) = told.value.lines
    return line


def saved(image: Image.Image, format: str, **how: Any) -> bytes:
    raw = io.BytesIO()
    image.save(raw, format, **how)
    return raw.getvalue()


# --- text ---


@pytest.mark.parametrize(
    ("codec", "text", "likely"),
    [
        ("gbk", "图片的背景颜色是什么?", "GBK"),
        ("gbk", "红色", "GBK"),
        ("big5", "圖片的背景是什麼顏色", "BIG5"),
        ("shift_jis", "背景の色は何ですか", "SHIFT_JIS"),
        ("euc_kr", "배경 색은 무엇입니까", "EUC-KR"),
        ("cp1251", "Какого цвета фон", "WINDOWS-1251"),
        ("cp1252", "“où est le château ?”", "WINDOWS-1252"),
        ("latin-1", "où est le château ?", "ISO-8859-1 (Latin-1)"),
        ("latin-1", "Straße", "ISO-8859-1 (Latin-1)"),
    ],
)
def test_text_that_is_not_utf8_is_refused_with_its_line_and_likely_encoding(
    tmp_path: Path, codec: str, text: str, likely: str
) -> None:
    lines = [json.dumps(TEXT).encode(), json.dumps(TEXT | {"question": text}, ensure_ascii=False).encode(codec)]
    told = fault(data_set(tmp_path / "d", raw=b"\n".join(lines)))
    assert f"metadata.jsonl, line 2: not UTF-8, it looks like {likely}; " in told
    assert f"iconv -f {likely.split()[0]} -t UTF-8" in told


@given(st.binary(max_size=200))
def test_an_encoding_is_guessed_for_any_bytes(raw: bytes) -> None:
    assert likely_encoding(raw)


def test_a_byte_order_mark_is_skipped_and_utf8_kept(tmp_path: Path) -> None:
    raw = "\ufeff".encode() + json.dumps(TEXT | {"question": "红色 é"}, ensure_ascii=False).encode()
    assert read_split(data_set(tmp_path / "d", raw=raw), "test").rows[0].question == "红色 é"


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_utf_16_and_32_are_named(tmp_path: Path, codec: str) -> None:
    told = fault(data_set(tmp_path / "d", raw=json.dumps(TEXT).encode(codec)))
    assert f"metadata.jsonl is {codec[:6].upper()}, not UTF-8" in told


@pytest.mark.parametrize("key", ["question", "answer", "task", "split", "file_name"])
def test_half_of_a_surrogate_pair_is_an_error_that_names_its_row(tmp_path: Path, key: str) -> None:
    told = fault(data_set(tmp_path / "d", TEXT, ROW | {key: "a\ud800"}))
    assert f"line 2: {key} holds '\\ud800', half of a surrogate pair" in told


def test_a_whole_surrogate_pair_is_its_character(tmp_path: Path) -> None:
    raw = json.dumps(TEXT | {"question": "😀"}).encode()
    assert b"\\ud83d" in raw
    assert read_split(data_set(tmp_path / "d", raw=raw), "test").rows[0].question == "😀"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b'{"question": "q", "question": "r"}', "line 1: the key 'question' stands twice"),
        (json.dumps(TEXT | {"question": "x" * 1_000_001}).encode(), "line 1: question has 1,000,001 characters"),
        (json.dumps(TEXT | {"task": "x" * 201}).encode(), "line 1: task has 201 characters"),
        (b'{"question": "' + b"x" * (20 << 20), "line 1: the line is longer than 8,388,608 bytes"),
        (b"\0" * 9_000_000, "is UTF-16|line 1: the line is longer"),
        (json.dumps(TEXT | {"file_name": ["a.png"]}).encode(), "line 1: file_name is no text"),
        (json.dumps(TEXT | {"file_name": "a" * 5000}).encode(), "line 1: image .* cannot be read: File name too long"),
    ],
)
def test_rows_that_are_too_large_or_of_another_form_are_a_one_line_error(
    tmp_path: Path, raw: bytes, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        read_split(data_set(tmp_path / "d", raw=raw), "test")


def test_a_metadata_file_of_200_gigabytes_is_refused_without_reading_it(tmp_path: Path) -> None:
    folder = data_set(tmp_path / "d", TEXT)
    os.truncate(folder / "metadata.jsonl", 200 << 30)
    assert "has 214,748,364,800 bytes, more than 2,147,483,648" in fault(folder)


# --- which files are opened ---


def test_an_image_of_200_gigabytes_is_refused_without_reading_it(tmp_path: Path) -> None:
    folder = data_set(tmp_path / "d", ROW)
    (folder / "a.png").touch()
    os.truncate(folder / "a.png", 200 << 30)
    assert "'a.png' has 214,748,364,800 bytes, more than 536,870,912" in fault(folder)


def test_a_fifo_a_socket_and_a_directory_are_not_opened(tmp_path: Path) -> None:
    folder = data_set(tmp_path / "d", ROW)
    os.mkfifo(folder / "a.png")
    assert "line 1: image 'a.png' is no regular file" in fault(folder)
    (folder / "a.png").unlink()
    with socket.socket(socket.AF_UNIX) as one:
        here = Path.cwd()
        os.chdir(folder)  # a socket's path may not be long
        try:
            one.bind("a.png")
        finally:
            os.chdir(here)
        assert "line 1: image 'a.png' is no regular file" in fault(folder)
    (folder / "a.png").unlink()
    (folder / "a.png").mkdir()
    assert "line 1: image 'a.png' is no regular file" in fault(folder)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/dev/zero")
def test_a_device_behind_a_link_is_not_opened(tmp_path: Path) -> None:
    folder = data_set(tmp_path / "d", ROW)
    (folder / "a.png").symlink_to("/dev/zero")
    assert "'a.png' is or lies behind a link that points outside of the data set" in fault(folder)


def test_links_inside_of_the_data_set_are_followed(tmp_path: Path) -> None:
    folder = data_set(tmp_path / "d", ROW)
    Image.fromarray(GREY).save(folder / "real.png")
    (folder / "a.png").symlink_to("real.png")
    assert list(read_split(folder, "test").images.names) == ["a.png"]


@pytest.mark.parametrize("name", ["a.png", "images/a.png"])
def test_links_out_are_refused_by_name(tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    Image.fromarray(GREY).save(outside / "a.png")
    folder = data_set(tmp_path / "d", ROW | {"file_name": name})
    (folder / name.partition("/")[0]).symlink_to(outside if "/" in name else outside / "a.png")
    assert f"line 1: image {name!r} is or lies behind a link that points outside" in fault(folder)


def test_metadata_behind_a_link_out_is_refused(tmp_path: Path) -> None:
    data_set(tmp_path / "other", TEXT)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "metadata.jsonl").symlink_to(tmp_path / "other" / "metadata.jsonl")
    assert "'metadata.jsonl' is or lies behind a link that points outside" in fault(tmp_path / "d")


def test_a_snapshot_of_the_hugging_face_cache_is_read_through_its_blobs_and_no_others(tmp_path: Path) -> None:
    cache = tmp_path / "datasets--ads"
    snapshot = cache / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    (cache / "blobs").mkdir()
    (cache / "blobs" / "aa").write_text(json.dumps(ROW), "utf-8")
    Image.fromarray(GREY).save(cache / "blobs" / "bb", "PNG")
    (snapshot / "metadata.jsonl").symlink_to("../../blobs/aa")
    (snapshot / "a.png").symlink_to("../../blobs/bb")
    split = read_split(snapshot, "test")
    assert np.array_equal(np.asarray(open_image(split, "a.png"))[..., 0], GREY)

    other = tmp_path / "datasets--others" / "blobs"
    other.mkdir(parents=True)
    Image.fromarray(GREY).save(other / "bb", "PNG")
    (snapshot / "a.png").unlink()
    (snapshot / "a.png").symlink_to(other / "bb")
    (cache / "blobs" / "aa").write_text(json.dumps(ROW | {"question": "r"}), "utf-8")
    assert "points outside of the data set" in fault(snapshot)


# --- pictures ---


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_the_listed_formats_are_read_whatever_their_name(tmp_path: Path, format: str) -> None:
    path = tmp_path / "a.any"
    path.write_bytes(saved(Image.new("RGB", (8, 6), (255, 255, 255)), format))
    image = open_picture(path)
    assert (image.mode, image.size, image.getpixel((0, 0))) == ("RGB", (8, 6), (255, 255, 255))


def png_of(width: int, height: int) -> bytes:
    """A PNG of that size whose pixels are all black, in a few kB."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n",
            "it is none of JPEG, PNG, WEBP, BMP, GIF, TIFF",
        ),
        (saved(Image.new("RGB", (8, 8)), "AVIF")[:200], "it is none of JPEG"),
        (saved(Image.new("RGB", (8, 8)), "PPM"), "it is none of JPEG"),
        (saved(Image.effect_noise((64, 64), 50), "PNG")[:900], "it is damaged"),
        (saved(Image.effect_noise((64, 64), 50), "JPEG")[:900], "it is damaged"),
        (png_of(13_000, 13_000), "it has 13000 x 13000 pixels, more than 100,000,000"),
        (png_of(60_000, 60_000), "it has more than 100,000,000 pixels"),
        (png_of(2010, 10), "one side more than 200 times the other"),
        (saved(Image.fromarray(np.full((4, 4), np.nan, np.float32)), "TIFF"), "values that are not finite"),
        (b"", "it is empty"),
    ],
)
def test_a_file_that_is_not_a_picture_is_refused_before_it_is_decoded(tmp_path: Path, raw: bytes, message: str) -> None:
    folder = data_set(tmp_path / "d", ROW)
    (folder / "a.png").write_bytes(raw)
    with pytest.raises(UserError, match=f"a.png cannot be read as an image: .*{message}.*line 1, asking 'q'") as told:
        open_image(read_split(folder, "test"), "a.png")
    assert len(told.value.lines) == 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied_as_transformers_does(tmp_path: Path, orientation: int, format: str) -> None:
    image = Image.fromarray(np.kron(np.array([[0, 60, 120], [180, 220, 255]], np.uint8), np.ones((16, 16), np.uint8)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "a").write_bytes(saved(image, format, exif=exif))
    # Pillow turns a TIFF itself when it loads it, and exif_transpose would turn it once more
    reference = io.BytesIO(saved(image, "PNG" if format == "TIFF" else format, exif=exif))
    expected = ImageOps.exif_transpose(Image.open(reference)).convert("RGB")
    found = open_picture(tmp_path / "a")
    assert found.size == ((48, 32) if orientation < 5 else (32, 48))
    assert np.array_equal(np.asarray(found), np.asarray(expected))


def test_a_damaged_exif_block_leaves_the_picture_upright(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(saved(Image.fromarray(GREY), "JPEG", exif=b"Exif\0\0MM\0\x2a\xff\xff\xff\xff"))
    assert open_picture(tmp_path / "a").size == (16, 16)


@pytest.mark.parametrize(
    ("values", "format", "grey"),
    [
        (np.array([[0, 257, 128 * 257, 65535]], np.uint16), "PNG", [0, 1, 128, 255]),
        (np.array([[0, 257, 128 * 257, 65535]], np.uint16), "TIFF", [0, 1, 128, 255]),
        (np.array([[0.0, 0.2, 1.0]], np.float32), "TIFF", [0, 51, 255]),
        (np.array([[0.0, 51.0, 255.0]], np.float32), "TIFF", [0, 51, 255]),
        (np.array([[-1000.0, 0.0, 4000.0]], np.float32), "TIFF", [0, 51, 255]),
        (np.array([[0, 51, 255]], np.int32), "TIFF", [0, 51, 255]),
        (np.array([[0, 51 * 257, 65535]], np.int32), "TIFF", [0, 51, 255]),
        (np.array([[-10, 0, 40]], np.int32), "TIFF", [0, 51, 255]),
    ],
)
def test_deep_grey_is_scaled_and_not_clipped(tmp_path: Path, values: np.ndarray, format: str, grey: list[int]) -> None:
    (tmp_path / "a").write_bytes(saved(Image.fromarray(values), format))
    assert np.asarray(open_picture(tmp_path / "a"))[0].tolist() == [[value] * 3 for value in grey]


def transparent_palette() -> bytes:
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 200, 10, 20])
    image.putdata([0, 1])
    return saved(image, "PNG", transparency=0)


RGBA = Image.new("RGBA", (2, 1))
RGBA.putdata([(0, 0, 0, 0), (200, 10, 20, 255)])
LA = Image.new("LA", (2, 1))
LA.putdata([(0, 0), (70, 255)])
HALF = Image.new("RGBA", (1, 1), (0, 0, 0, 51))
KEYED = Image.fromarray(np.array([[0, 65535]], np.uint16))


@pytest.mark.parametrize(
    ("raw", "pixels"),
    [
        (saved(RGBA, "PNG"), [[255, 255, 255], [200, 10, 20]]),
        (saved(RGBA, "WEBP", lossless=True), [[255, 255, 255], [200, 10, 20]]),
        (saved(LA, "PNG"), [[255, 255, 255], [70, 70, 70]]),
        (saved(HALF, "PNG"), [[204, 204, 204]]),
        (transparent_palette(), [[255, 255, 255], [200, 10, 20]]),
        (saved(Image.new("RGB", (1, 1), (9, 9, 9)), "PNG", transparency=(9, 9, 9)), [[255, 255, 255]]),
        (saved(KEYED, "PNG", transparency=0), [[255, 255, 255], [255, 255, 255]]),
    ],
)
def test_transparency_is_laid_on_white(tmp_path: Path, raw: bytes, pixels: list[list[int]]) -> None:
    (tmp_path / "a").write_bytes(raw)
    assert np.asarray(open_picture(tmp_path / "a"))[0].tolist() == pixels


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK"])
def test_ordinary_pictures_keep_every_bit(mode: str) -> None:
    noise = Image.merge("RGB", [Image.effect_noise((32, 32), 90) for _ in range(3)]).convert(mode)
    raw = saved(noise, "TIFF" if mode == "CMYK" else "PNG")
    image = Image.open(io.BytesIO(raw))
    assert as_rgb(image).tobytes() == image.convert("RGB").tobytes()
    assert is_plain(raw)


def test_pictures_that_were_read_otherwise_before_are_known(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    picture = Image.fromarray(GREY)
    for format in ("JPEG", "PNG", "WEBP"):
        assert not is_plain(saved(picture, format, exif=turned))
        assert is_plain(saved(picture, format, exif=Image.Exif()))
    assert is_plain(saved(picture, "TIFF", exif=turned))  # Pillow turned these always
    assert not is_plain(saved(RGBA, "PNG"))
    assert is_plain(saved(picture.convert("RGBA"), "PNG"))  # nothing shows through
    assert not is_plain(saved(Image.fromarray(np.array([[300, 9000]], np.uint16)), "PNG"))


def old_digest(row: dict, picture: bytes) -> str:
    """The digest of a data set of one row, as it was when pictures were read with convert("RGB") alone."""
    words = json.dumps([row["file_name"], row["question"], row["answer"], row["task"]]).encode()
    return hashlib.sha256(words + hashlib.sha256(picture).digest()).hexdigest()


def test_the_digest_of_earlier_versions_says_how_odd_pictures_are_read(tmp_path: Path) -> None:
    plain = data_set(tmp_path / "plain", ROW)
    (plain / "a.png").write_bytes(png_of(1, 1))
    odd = data_set(tmp_path / "odd", ROW)
    (odd / "a.png").write_bytes(saved(RGBA, "PNG"))
    assert read_split(odd, "test").old_digest != old_digest(ROW, (odd / "a.png").read_bytes())
    assert read_split(plain, "test").old_digest == old_digest(ROW, (plain / "a.png").read_bytes())


# --- splits, and rows or pictures that two of them share ---


@pytest.mark.parametrize(
    ("there", "names"),
    [
        (["train", "validation", "test"], ["train", "train", "validation", "test"]),
        (["train", "dev", "test"], ["train", "train", "dev", "test"]),
        (["train", "val", "test", "extra"], ["train", "train", "val", "test"]),
        (["train", "test"], ["train[score]", "train[distill]", "train[gate]", "test"]),
        (["train"], ["train[score]", "train[distill]", "train[gate]", "train[test]"]),
        (["train", "test", "extra"], []),
        (["train", "validation", "test", "gate"], []),
        (["score", "distill", "gate", "test"], []),
    ],
)
def test_the_usual_splits_are_known(tmp_path: Path, there: list[str], names: list[str]) -> None:
    folder = data_set(tmp_path / "d", *(TEXT | {"split": name} for name in there))
    assert list(usual_splits(folder).values()) == names


def leak(folder: Path) -> str | None:
    return check_leak(read_split(folder, "distill"), read_split(folder, "test"))


def test_a_picture_under_two_spellings_is_one(tmp_path: Path) -> None:
    folder = data_set(tmp_path / "d", ROW | {"split": "distill"}, ROW | {"file_name": "./a.png"})
    Image.fromarray(GREY).save(folder / "a.png")
    with pytest.raises(UserError, match=r"image a\.png is in the test and in the distill split;"):
        leak(folder)
    both = data_set(tmp_path / "both", ROW, ROW | {"file_name": "./a.png"}, ROW | {"file_name": "x/../a.png"})
    Image.fromarray(GREY).save(both / "a.png")
    (both / "x").mkdir()
    assert list(read_split(both, "test").images.names) == ["a.png"]


def test_the_same_bytes_under_two_names_are_refused(tmp_path: Path) -> None:
    folder = data_set(tmp_path / "d", ROW | {"split": "distill"}, ROW | {"file_name": "b.png"})
    for name in ("a.png", "b.png"):
        Image.fromarray(GREY).save(folder / name)
    with pytest.raises(UserError, match=r"b\.png is in the test and in the distill split \(under the name a\.png"):
        leak(folder)


def test_the_same_row_of_text_in_two_splits_is_counted(tmp_path: Path) -> None:
    folder = data_set(tmp_path / "d", TEXT | {"split": "distill"}, TEXT | {"question": "r"}, TEXT | {"task": "u"}, TEXT)
    assert "2 of the 3 rows of the test split" in (leak(folder) or "")
    assert "for instance metadata.jsonl, line 3" in (leak(folder) or "")
    alone = data_set(tmp_path / "e", TEXT | {"split": "distill"}, TEXT | {"answer": "other"})
    assert leak(alone) is None


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    raw=st.binary(max_size=300),
    start=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\0", b"BM", b"\xff\xd8"]),
)
def test_any_bytes_as_a_picture_are_read_or_are_a_one_line_error(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes, start: bytes
) -> None:
    path = tmp_path_factory.mktemp("odd") / "a"
    path.write_bytes(start + raw)
    with contextlib.suppress(UserError):
        assert open_picture(path).mode == "RGB"


def test_a_row_of_many_keys_with_one_duplicate_is_refused_quickly(tmp_path: Path) -> None:
    """A search that compares every key with all others would take an hour."""
    row = ", ".join(f'"{number}": 0' for number in [*range(400_000), 399_999])
    (tmp_path / "metadata.jsonl").write_text(f"{{{row}}}\n", "utf-8")
    with pytest.raises(UserError, match="line 1: the key '399999' stands twice"):
        read_split(tmp_path, "test")


def test_a_jpeg_of_many_scans_is_refused_before_it_is_decoded() -> None:
    """A scan of a few bytes is a pass over all pixels: a file of 10 MB may take hours."""
    file = io.BytesIO()
    Image.new("L", (64, 64), 128).save(file, "JPEG", progressive=True)
    raw = file.getvalue()
    last = raw[raw.rindex(b"\xff\xda") : -2]
    assert picture_of(raw[:-2] + last * 100 + b"\xff\xd9").size == (64, 64)
    with pytest.raises(UserError, match="it is a JPEG of more than 200 scans"):
        picture_of(raw[:-2] + last * 200 + b"\xff\xd9")
