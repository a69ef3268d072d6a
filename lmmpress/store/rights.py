"""The rights that keys need in a bucket, as a policy document: for a store under its prefix, and for places that are
only read."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Document = dict[str, Any]

READ = ("s3:GetObject",)
WRITE = ("s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts")
LIST = "s3:ListBucket"
ON_BUCKET = ("s3:GetBucketLocation", "s3:ListBucketMultipartUploads")
"""S3 has no condition on a prefix for these. They show the names of unfinished uploads, but no contents."""


@dataclass(frozen=True)
class Place:
    """A bucket and a prefix in it, without the slash at its end; all of the bucket where the prefix is empty."""

    bucket: str
    prefix: str = ""

    @property
    def objects(self) -> str:
        """The ARN of all objects in it."""
        return f"arn:aws:s3:::{self.bucket}/{self.prefix}/*" if self.prefix else f"arn:aws:s3:::{self.bucket}/*"

    @property
    def listed(self) -> str:
        """The prefixes that may be listed. The slash is needed: `store` alone would allow `storehouse` too."""
        return f"{self.prefix}/*" if self.prefix else "*"


def place(address: str) -> Place:
    """`s3://bucket/prefix`, with or without the scheme, as a place."""
    bucket, _, prefix = address.removeprefix("s3://").partition("/")
    return Place(bucket, prefix.strip("/"))


def policy(write: Iterable[Place], read: Iterable[Place] = (), principal: str | None = None) -> Document:
    """A policy that allows a store at each place of `write`, reading at each of `read`, and nothing else.

    Without `principal` it is a policy for a user or a role, as AWS and MinIO attach it; with one (the ARN of a user) it
    is a policy of the bucket, as Ceph takes it. A policy of a bucket can only name that bucket.
    """
    write, read = list(write), list(read)
    who = {"Principal": {"AWS": [principal]}} if principal else {}
    statements: list[Document] = []
    for bucket in dict.fromkeys(one.bucket for one in (*write, *read)):
        here = [one for one in (*write, *read) if one.bucket == bucket]
        arn = f"arn:aws:s3:::{bucket}"
        on_bucket = ON_BUCKET if any(one.bucket == bucket for one in write) else ON_BUCKET[:1]
        statements.append({"Effect": "Allow", **who, "Action": list(on_bucket), "Resource": [arn]})
        prefixes = list(dict.fromkeys(one.listed for one in here))
        listing: Document = {"Effect": "Allow", **who, "Action": [LIST], "Resource": [arn]}
        if "*" not in prefixes:
            listing["Condition"] = {"StringLike": {"s3:prefix": prefixes}}
        statements.append(listing)
    for actions, places in (((*READ, *WRITE), write), (READ, read)):
        if places:
            resources = list(dict.fromkeys(one.objects for one in places))
            statements.append({"Effect": "Allow", **who, "Action": list(actions), "Resource": resources})
    return {"Version": "2012-10-17", "Statement": statements}
