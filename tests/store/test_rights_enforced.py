"""Keys with the documented policy, on a server that enforces policies (`make test-radosgw`): they allow everything that
a pipeline does with a store and nothing outside of it, and the doctor finds keys that are too weak or too strong."""

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from minio import Minio
from minio.error import S3Error
from support.certain import certain
from support.files import contents
from support.plans import SHORT
from support.results import essence
from support.store_worker import PART, opened, random_checkpoint

from lmmpress.doctor.external_services import Addresses, check_buckets
from lmmpress.engine.compression import compress
from lmmpress.plan import parse_plan
from lmmpress.store import open_store
from lmmpress.store.bucket import BucketObjects
from lmmpress.store.connection import connect
from lmmpress.store.housekeeping import collect_garbage, verify_store
from lmmpress.store.objects import ChangedError
from lmmpress.store.rights import Place, policy

pytestmark = pytest.mark.enforcing


@dataclass
class Limited:
    """A bucket of another owner, and a user who may write under `store` and read under `models` and `data`. The
    environment holds the user's keys."""

    owner: Minio
    bucket: str
    arn: str

    @property
    def store(self) -> str:
        return f"s3://{self.bucket}/store"

    def allow(self, document: dict[str, Any]) -> None:
        self.owner.set_bucket_policy(self.bucket, json.dumps(document))

    def names(self) -> set[str]:
        found = {str(item.object_name) for item in self.owner.list_objects(self.bucket, recursive=True)}
        return found | {str(item.object_name) for item in self.owner._list_multipart_uploads(self.bucket).uploads}

    def document(self, drop: str = "") -> dict[str, Any]:
        """The documented policy, without one of its rights."""
        made = policy(
            [Place(self.bucket, "store")], [Place(self.bucket, name) for name in ("models", "data")], self.arn
        )
        for statement in made["Statement"]:
            statement["Action"] = [action for action in statement["Action"] if action != drop]
        made["Statement"] = [statement for statement in made["Statement"] if statement["Action"]]
        return made


@pytest.fixture
def limited(new_bucket: Callable[[], str], s3_server: Any, monkeypatch: pytest.MonkeyPatch) -> Limited:
    bucket = new_bucket().removeprefix("s3://").partition("/")[0]
    name = f"pipelines-{uuid.uuid4().hex[:8]}"
    made = Limited(connect(), bucket, f"arn:aws:iam:::user/{name}")
    owner = certain(made.owner._provider)
    fixed = owner.retrieve()  # with the owner's keys, which the environment holds no longer
    monkeypatch.setattr(owner, "retrieve", lambda: fixed)
    made.allow(made.document())
    key, secret = s3_server.make_user(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    monkeypatch.setattr("lmmpress.doctor.external_services._PATIENCE", 2.0)
    return made


@pytest.mark.usefixtures("trusting")
def test_a_run_needs_no_more_than_the_documented_policy(
    limited: Limited, raw_plan: dict[str, Any], tmp_path: Path
) -> None:
    """Model and data are read, the run is begun, its steps are stored and decided under leases, and it is resumed."""
    for name in ("model", "data"):
        for path, data in contents(Path(raw_plan[name])).items():
            limited.owner._put_object(limited.bucket, f"{name}s/{path}" if name == "model" else f"{name}/{path}", data)
    before = limited.names()
    there = {"model": f"s3://{limited.bucket}/models", "data": f"s3://{limited.bucket}/data", "store": limited.store}
    here = compress(parse_plan(raw_plan | {"stages": SHORT}), tmp_path / "here")
    made = compress(parse_plan(raw_plan | {"stages": SHORT} | there), tmp_path / "there")
    assert essence(made) == essence(here)
    again = compress(parse_plan(raw_plan | {"stages": SHORT} | there), tmp_path / "again")
    assert [step.seconds for step in again.steps] == [step.seconds for step in made.steps]
    assert all(name.startswith("store/") for name in limited.names() - before)
    assert verify_store(open_store(limited.store)) == []


def test_uploads_in_parts_and_housekeeping_need_no_more(limited: Limited, tmp_path: Path) -> None:
    store = opened(limited.store)
    made = random_checkpoint(tmp_path / "made", 0, {"model.safetensors": 3 * PART + 1})
    digest = store.add_checkpoint(made)
    assert contents(store.checkpoint(digest)) == contents(made)
    # an upload that was cut off is found and removed
    name = f"store/blobs/ab/{'ab' * 32}"
    connect()._create_multipart_upload(limited.bucket, name, {})
    assert name in limited.names()
    assert [entry.name.partition("/")[0] for entry in collect_garbage(store, -60, dry_run=False).entries] == ["uploads"]
    assert name not in limited.names()


def test_writes_on_condition_are_those_of_the_owner(limited: Limited) -> None:
    objects = BucketObjects(limited.store)
    assert objects.read("runs/a.json") is None, "what is not there is told from what may not be read"
    objects.write("runs/a.json", b"1", None)
    with pytest.raises(ChangedError):
        objects.write("runs/a.json", b"2", None)
    found = objects.read("runs/a.json")
    assert found is not None
    objects.write("runs/a.json", b"3", found.tag)
    with pytest.raises(ChangedError):
        objects.write("runs/a.json", b"4", found.tag)
    objects.delete("runs/a.json")
    objects.delete("runs/a.json")
    assert objects.read("runs/a.json") is None


def test_outside_of_the_prefix_everything_is_refused(limited: Limited) -> None:
    limited.owner._put_object(limited.bucket, "other/secret", b"secret")
    limited.owner._put_object(limited.bucket, "models/config.json", b"{}")
    client = connect()
    assert client.get_object(limited.bucket, "models/config.json").read() == b"{}"
    for refused in (
        lambda: client.get_object(limited.bucket, "other/secret"),
        lambda: client.get_object(limited.bucket, "storehouse"),
        lambda: client._put_object(limited.bucket, "other/new", b""),
        lambda: client._put_object(limited.bucket, "models/config.json", b"changed"),
        lambda: client._put_object(limited.bucket, "storehouse", b""),
        lambda: client.remove_object(limited.bucket, "models/config.json"),
        lambda: client._create_multipart_upload(limited.bucket, "models/new", {}),
        lambda: list(client.list_objects(limited.bucket)),
        lambda: list(client.list_objects(limited.bucket, "other/")),
        lambda: list(client.list_objects(limited.bucket, "store")),
        lambda: client.get_bucket_policy(limited.bucket),
        lambda: client.delete_bucket_policy(limited.bucket),
        lambda: client.remove_bucket(limited.bucket),
    ):
        with pytest.raises(S3Error) as told:
            refused()
        assert told.value.code == "AccessDenied"
    assert limited.names() == {"other/secret", "models/config.json"}


def findings(limited: Limited, here: bool = False) -> list[tuple[str, str]]:
    asked = Addresses(limited.store, f"s3://{limited.bucket}/models", f"s3://{limited.bucket}/data")
    return [(one.status, one.said) for one in check_buckets(asked, here)]


def test_the_doctor_finds_the_documented_rights_enough_and_not_too_many(limited: Limited) -> None:
    for name in ("models/config.json", "data/metadata.jsonl", "other/secret"):
        limited.owner._put_object(limited.bucket, name, b"{}")
    before = limited.names()
    found = findings(limited)
    assert [status for status, _ in found] == ["ok", "ok", "ok", "ok"], found
    assert limited.names() == before, "nothing is left behind"


RIGHTS = sorted(
    {action for statement in policy([Place("bucket", "store")])["Statement"] for action in statement["Action"]}
    # The first is what other clients ask for where no region is given. The others Ceph gives to whoever wrote an object
    # or began an upload; tests/doctor/test_doctor_buckets.py has the doctor's words for them.
    - {"s3:GetBucketLocation", "s3:GetObject", "s3:ListMultipartUploadParts"}
)


@pytest.mark.parametrize("right", RIGHTS)
def test_the_doctor_names_the_right_that_is_missing(limited: Limited, right: str) -> None:
    limited.allow(limited.document(drop=right))
    found = findings(limited)[0]
    assert found == ("failed", f"the keys lack {right}")
    assert limited.names() == set(), "nothing is left behind"


def test_the_doctor_names_what_is_missing_to_read_model_and_data(limited: Limited) -> None:
    """Where there is no object, Ceph's answer does not show whether reading or listing is denied; so an object is
    made."""
    for name in ("models/config.json", "data/metadata.jsonl"):
        limited.owner._put_object(limited.bucket, name, b"{}")
    limited.allow(policy([Place(limited.bucket, "store")], [Place(limited.bucket, "data")], limited.arn))
    assert [status for status, _ in findings(limited)] == ["ok", "ok", "failed", "ok"]
    assert findings(limited)[2][1] == "the keys lack s3:ListBucket, s3:GetObject"


def test_the_doctor_reports_what_else_an_owners_keys_may_do(
    limited: Limited, s3_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited.owner._put_object(limited.bucket, "other/secret", b"secret")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret_key)
    other = f"other-{uuid.uuid4().hex[:8]}"
    limited.owner.make_bucket(other)
    (_, (status, said), *_) = findings(limited)
    assert status == "warning"
    for words in (
        "see the names of other buckets",
        f"list all of bucket {limited.bucket}",
        "read outside of its prefix",
        "write outside of its prefix",
        "read the policy of the bucket",
    ):
        assert words in said
    assert limited.names() == {"other/secret"}, "nothing is left behind"


def test_the_doctor_reports_rights_on_the_whole_bucket(limited: Limited) -> None:
    limited.allow(policy([Place(limited.bucket)], principal=limited.arn))
    limited.owner._put_object(limited.bucket, "other/secret", b"secret")
    (_, (status, said), *_) = findings(limited)
    assert (status, said) == (
        "warning",
        f"they may also list all of bucket {limited.bucket}, read outside of its prefix, write outside of its prefix: "
        "no task needs that",
    )
    assert limited.names() == {"other/secret"}
