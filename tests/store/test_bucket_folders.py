"""A plain Hugging Face directory in a bucket, and prefixes of any characters."""

from pathlib import Path

import pytest
from support.buckets import forget_cache
from support.data import write_data
from support.files import contents
from support.s3 import Proxy
from support.store_worker import opened, random_checkpoint

from lmmpress import inspect_data
from lmmpress.data import open_data, read_split
from lmmpress.errors import UserError
from lmmpress.store import open_checkpoint
from lmmpress.store.connection import connect
from lmmpress.store.housekeeping import collect_garbage, verify_store


def test_a_plain_model_directory_in_a_bucket_is_fetched(proxy: Proxy, bucket_address: str, tmp_path: Path) -> None:
    made = random_checkpoint(tmp_path / "made", 0, {"model.safetensors": 3000, "tokenizer.json": 10, "merges.txt": 0})
    bucket = bucket_address.removeprefix("s3://").partition("/")[0]
    for name, data in contents(made).items():
        connect()._put_object(bucket, f"teachers/antgmm/{name}", data)
    folder = f"s3://{bucket}/teachers/antgmm"
    assert contents(open_checkpoint(folder)) == contents(made)
    proxy.requests.clear()
    assert contents(open_checkpoint(folder)) == contents(made)
    assert len(proxy.requests) == 1
    connect()._put_object(bucket, "teachers/antgmm/config.json", b'{"seed": 7}')
    assert contents(open_checkpoint(folder))["config.json"] == b'{"seed": 7}'
    with pytest.raises(UserError, match="there is no checkpoint"):
        open_checkpoint(f"s3://{bucket}/teachers")


def test_the_empty_objects_that_consoles_make_for_folders_are_ignored(bucket_address: str, tmp_path: Path) -> None:
    made = random_checkpoint(tmp_path / "made", 0)
    bucket = bucket_address.removeprefix("s3://").partition("/")[0]
    for name, data in (contents(made) | {"": b"", "vocab/": b""}).items():
        connect()._put_object(bucket, f"teachers/antgmm/{name}", data)
    folder = open_checkpoint(f"s3://{bucket}/teachers/antgmm")
    assert contents(folder) == contents(made)
    store = opened(bucket_address)
    digest = store.add_checkpoint(made)
    for name in ("models/", "models/blobs/", "models/runs/", "models/checkpoints/"):
        connect()._put_object(bucket, name, b"")
    assert contents(opened(bucket_address).checkpoint(digest)) == contents(made)
    assert verify_store(store) == []
    assert collect_garbage(store, 0, dry_run=True).entries == []


def test_only_files_that_may_belong_to_a_checkpoint_are_fetched(
    proxy: Proxy, bucket_address: str, tmp_path: Path
) -> None:
    bucket = bucket_address.removeprefix("s3://").partition("/")[0]
    wanted = {"config.json": b"{}", "model.safetensors": b"x", "LICENSE": b"y", "tokenizer.model": b"z"}
    others = [".env", "evil.py", "weights.pickle", "pytorch_model.bin", "custom_generate/generate.py", "a", "a/b"]
    for name, data in (wanted | dict.fromkeys([*others, "n" * 300], b"never")).items():
        connect()._put_object(bucket, f"teachers/odd/{name}", data)
    proxy.requests.clear()
    assert contents(open_checkpoint(f"s3://{bucket}/teachers/odd")) == wanted
    assert len(proxy.requests) == 1 + len(wanted)


def test_a_folder_in_a_bucket_that_no_disk_can_hold_is_refused(bucket_address: str) -> None:
    bucket = bucket_address.removeprefix("s3://").partition("/")[0]
    for name in ("metadata.jsonl", "images", "images/0.png"):
        connect()._put_object(bucket, f"data/{name}", b"{}")
    with pytest.raises(UserError, match="'images' is a file and also the folder of"):
        open_data(f"s3://{bucket}/data")


def test_a_data_set_in_a_bucket_is_inspected_and_fixed(bucket_address: str, tmp_path: Path) -> None:
    bucket = bucket_address.removeprefix("s3://").partition("/")[0]
    made = write_data(tmp_path / "made", {"train": 3, "test": 2})
    gone = sorted((made / "images").iterdir())[0]
    gone.unlink()
    for name, raw in contents(made).items():
        connect()._put_object(bucket, f"ads/{name}", raw)
    found = inspect_data(f"s3://{bucket}/ads", fix=tmp_path / "clean")
    assert (found.data, found.count) == (f"s3://{bucket}/ads", 8)
    assert [fault.why for fault in found.faults] == [f"image 'images/{gone.name}' is missing"] * 2
    assert read_split(tmp_path / "clean", "test").digest == read_split(made, "test").digest


@pytest.mark.parametrize("prefix", ["a b/c", "100%25 done", "ünïcode/空", "q?x=1", "hash#tag", "plus+and&"])
def test_a_prefix_may_have_any_characters(bucket_address: str, tmp_path: Path, prefix: str) -> None:
    bucket = bucket_address.removeprefix("s3://").partition("/")[0]
    made = random_checkpoint(tmp_path / "made", 0)
    store = opened(f"s3://{bucket}/{prefix}")
    digest = store.add_checkpoint(made)
    assert contents(open_checkpoint(f"s3://{bucket}/{prefix}/checkpoints/{digest}")) == contents(made)
    assert verify_store(store) == []


def test_sizes_are_planned_without_fetching_weights(proxy: Proxy, bucket_address: str, tmp_path: Path) -> None:
    """A plain directory costs a list and its small files; a checkpoint in a store its manifest and the same."""
    made = random_checkpoint(tmp_path / "made", 0, {"model.safetensors": 3000, "tokenizer.json": 10})
    bucket = bucket_address.removeprefix("s3://").partition("/")[0]
    for name, data in contents(made).items():
        connect()._put_object(bucket, f"teachers/antgmm/{name}", data)
    digest = opened(bucket_address).add_checkpoint(made)
    small = {name: data for name, data in contents(made).items() if name != "model.safetensors"}
    forget_cache()
    for address, others in ((f"s3://{bucket}/teachers/antgmm", 1), (f"{bucket_address}/checkpoints/{digest}", 1)):
        proxy.requests.clear()
        assert contents(open_checkpoint(address, weights=False)) == small
        assert len(proxy.requests) == others + len(small)
        assert contents(open_checkpoint(address)) == contents(made), "asked for later, they are fetched"
        forget_cache()
