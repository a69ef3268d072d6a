"""The rights that keys need for a store, as a policy document: written, documented, printed. `make test-radosgw` tries
it on a server that enforces it."""

import json
import re

from support.paths import ROOT
from typer.testing import CliRunner

from lmmpress.cli.app import app
from lmmpress.store.rights import Place, place, policy

STORE, MODELS = Place("ads", "store"), Place("ads", "models")


def test_the_policy_allows_writes_below_the_store_and_reads_elsewhere() -> None:
    assert policy([STORE], [MODELS]) == {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": ["s3:GetBucketLocation", "s3:ListBucketMultipartUploads"],
                "Resource": ["arn:aws:s3:::ads"],
            },
            {
                "Effect": "Allow",
                "Action": ["s3:ListBucket"],
                "Resource": ["arn:aws:s3:::ads"],
                "Condition": {"StringLike": {"s3:prefix": ["store/*", "models/*"]}},
            },
            {
                "Effect": "Allow",
                "Action": [
                    "s3:GetObject",
                    "s3:PutObject",
                    "s3:DeleteObject",
                    "s3:AbortMultipartUpload",
                    "s3:ListMultipartUploadParts",
                ],
                "Resource": ["arn:aws:s3:::ads/store/*"],
            },
            {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::ads/models/*"]},
        ],
    }


def test_each_bucket_has_its_own_statements_and_a_whole_bucket_no_condition() -> None:
    statements = policy([Place("runs")], [MODELS])["Statement"]
    assert [(one["Action"][-1], one["Resource"], one.get("Condition")) for one in statements] == [
        ("s3:ListBucketMultipartUploads", ["arn:aws:s3:::runs"], None),
        ("s3:ListBucket", ["arn:aws:s3:::runs"], None),
        ("s3:GetBucketLocation", ["arn:aws:s3:::ads"], None),
        ("s3:ListBucket", ["arn:aws:s3:::ads"], {"StringLike": {"s3:prefix": ["models/*"]}}),
        ("s3:ListMultipartUploadParts", ["arn:aws:s3:::runs/*"], None),
        ("s3:GetObject", ["arn:aws:s3:::ads/models/*"], None),
    ]


def test_addresses_are_parsed_into_places() -> None:
    assert place("s3://ads/a/b/") == place("ads/a/b") == Place("ads", "a/b")
    assert place("s3://ads") == place("ads/") == Place("ads")


def test_the_documented_policies_are_those_that_the_command_prints() -> None:
    text = (ROOT / "docs" / "install.md").read_text("utf-8")
    shown = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL)]
    command = ["store", "policy", "s3://ads/store", "--read", "s3://ads/models", "--read", "s3://ads/data"]
    for_a_bucket = [*command, "--principal", "arn:aws:iam:::user/ads-pipelines"]
    printed = [json.loads(CliRunner().invoke(app, one).stdout) for one in (command, for_a_bucket)]
    assert shown == [printed[0], {"Effect": "Deny", "Action": ["admin:*"]}, printed[1]]


def test_an_address_that_is_not_in_a_bucket_gets_no_policy() -> None:
    for arguments in (
        ["./store"],
        ["s3://ads/*"],
        ["s3://key:secret@ads/store"],
        ["s3://ads/store", "--read", "models"],
        ["s3://ads/store", "--read", "s3://other/models", "--principal", "arn:aws:iam:::user/a"],
    ):
        done = CliRunner().invoke(app, ["store", "policy", *arguments])
        assert done.exit_code != 0, arguments
        assert "secret" not in done.output
