"""`init`'s part on S3: the bucket, and all about it that keeps journals safe and cheap.

Versioning, because each commit writes a journal over, and a mistake must be undoable; encryption and
the public access block, because journals hold what agents saw; lifecycle rules, because every old
version is as big as the journal (`init_lifecycle`).
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from streamjournal.admin.init.calls import Calls
from streamjournal.admin.init.lifecycle import archived_after, is_in_place, merge, rules_for
from streamjournal.admin.init.plan import Planned, Step, unchanged, until_active
from streamjournal.core.errors import SettingsError
from streamjournal.core.settings import Settings

_BLOCK_ALL: Final = {
    "BlockPublicAcls": True,
    "IgnorePublicAcls": True,
    "BlockPublicPolicy": True,
    "RestrictPublicBuckets": True,
}
#: The parts of a bucket's configuration, and the IAM action that allows to see each.
ASPECTS: Final = {
    "versioning": "s3:GetBucketVersioning",
    "encryption": "s3:GetEncryptionConfiguration",
    "public access": "s3:GetBucketPublicAccessBlock",
    "lifecycle": "s3:GetLifecycleConfiguration",
}
_ADVICE: Final = {
    "403": "it belongs to somebody else, or the credentials may not look at it; set STREAMJOURNAL_BUCKET "
    "to another name, or allow s3:ListBucket",
    "BucketAlreadyExists": "the name is taken; set STREAMJOURNAL_BUCKET to another one",
    "InvalidBucketName": "S3 does not allow this name; set STREAMJOURNAL_BUCKET to another one",
    "TooManyBuckets": "the account has too many buckets; raise its limit, or delete one",
}


class _Aspect(NamedTuple):
    """One part of the bucket's configuration.

    Args:
        detail: what it is, or is to be.
        put: the call that makes it so, with its parameters; None if it is so already.
    """

    name: str
    detail: str
    put: tuple[str, dict[str, Any]] | None = None


class BucketPlan:
    """Plans the journals' bucket.

    Args:
        settings: the bucket's name, and the prefix that the lifecycle rules are for.
        archive_versions_after: days until old versions go to Glacier. None: they expire, except
            where an earlier `init` archives them already: what was to be kept is not deleted because
            an option was left out.

    Raises:
        NotConfiguredError: nothing says the bucket's name.
        SettingsError: archive_versions_after is under one day.
    """

    def __init__(self, settings: Settings, *, archive_versions_after: int | None) -> None:
        if archive_versions_after is not None and archive_versions_after < 1:
            raise SettingsError(
                "archive_versions_after", f"{archive_versions_after} cannot be used; at least 1 day is"
            )
        self._bucket = settings.bucket_name()
        self._prefix = settings.prefix
        self._archive_after = archive_versions_after
        self._calls = Calls("s3", f"bucket {self._bucket}", _ADVICE)

    async def plan(self) -> list[Planned]:
        """The steps for the bucket and its configuration."""
        exists = await self._exists()
        if exists:
            bucket = unchanged(self._calls.what, "exists")
        else:
            where = f"in {await self._calls.region()}"
            bucket = Planned(Step(self._calls.what, "created", where), self._create)
        return [bucket, *[await self.plan_aspect(name, is_new=not exists) for name in ASPECTS]]

    async def plan_aspect(self, name: str, *, is_new: bool = False) -> Planned:
        """The step for one of ASPECTS.

        Args:
            is_new: the bucket does not exist yet.
        """
        look = {
            "versioning": self._versioning,
            "encryption": self._encryption,
            "public access": self._public_access,
            "lifecycle": self._lifecycle,
        }[name]
        return self._planned(await look(), is_new=is_new)

    async def aclose(self) -> None:
        """Free connections."""
        await self._calls.aclose()

    def _planned(self, aspect: _Aspect, *, is_new: bool) -> Planned:
        resource = f"{self._calls.what}: {aspect.name}"
        if aspect.put is None:
            return unchanged(resource, aspect.detail)
        operation, parameters = aspect.put

        async def apply() -> None:
            await self._calls.ask(operation, Bucket=self._bucket, **parameters)

        return Planned(Step(resource, "created" if is_new else "changed", aspect.detail), apply)

    async def _versioning(self) -> _Aspect:
        found = await self._look("get_bucket_versioning")
        if found.get("Status") == "Enabled":
            return _Aspect("versioning", "enabled")
        wanted = {"VersioningConfiguration": {"Status": "Enabled"}}
        return _Aspect("versioning", "enabled", ("put_bucket_versioning", wanted))

    async def _encryption(self) -> _Aspect:
        """AES256, unless the bucket encrypts already in a way that somebody chose."""
        name = "ServerSideEncryptionConfiguration"
        found = await self._look("get_bucket_encryption", "ServerSideEncryptionConfigurationNotFoundError")
        for rule in found.get(name, {}).get("Rules", ()):
            if algorithm := rule.get("ApplyServerSideEncryptionByDefault", {}).get("SSEAlgorithm"):
                return _Aspect("encryption", algorithm)
        rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
        return _Aspect("encryption", "AES256", ("put_bucket_encryption", {name: {"Rules": [rule]}}))

    async def _public_access(self) -> _Aspect:
        name = "PublicAccessBlockConfiguration"
        found = await self._look("get_public_access_block", "NoSuchPublicAccessBlockConfiguration")
        if found.get(name) == _BLOCK_ALL:
            return _Aspect("public access", "blocked")
        return _Aspect("public access", "blocked", ("put_public_access_block", {name: _BLOCK_ALL}))

    async def _lifecycle(self) -> _Aspect:
        found = await self._look("get_bucket_lifecycle_configuration", "NoSuchLifecycleConfiguration")
        existing = found.get("Rules", [])
        archive = self._archive_after if self._archive_after is not None else archived_after(existing)
        ours = rules_for(self._prefix, archive_after=archive)
        detail = _say(archive, others=len(merge(existing, ours)) - len(ours))
        if is_in_place(existing, ours):
            return _Aspect("lifecycle", detail)
        wanted: dict[str, Any] = {"LifecycleConfiguration": {"Rules": merge(existing, ours)}}
        if "TransitionDefaultMinimumObjectSize" in found:  # left out, S3 would reset it
            wanted["TransitionDefaultMinimumObjectSize"] = found["TransitionDefaultMinimumObjectSize"]
        return _Aspect("lifecycle", detail, ("put_bucket_lifecycle_configuration", wanted))

    async def _create(self) -> None:
        region = await self._calls.region()
        where: dict[str, Any] = {}
        if region != "us-east-1":  # which S3 takes for granted, and refuses as a constraint
            where = {"CreateBucketConfiguration": {"LocationConstraint": region}}
        there = ("BucketAlreadyOwnedByYou",)
        await self._calls.ask("create_bucket", expected=there, Bucket=self._bucket, **where)

        async def status() -> str:
            return "ACTIVE" if await self._exists() else "CREATING"

        await until_active(status, self._calls.what)

    async def _exists(self) -> bool:
        answer = await self._calls.ask("head_bucket", expected=("404", "NoSuchBucket"), Bucket=self._bucket)
        return answer is not None

    async def _look(self, operation: str, *absent: str) -> dict[str, Any]:
        """A part of the bucket's configuration; empty if that, or the bucket, does not exist."""
        answer = await self._calls.ask(operation, expected=(*absent, "NoSuchBucket"), Bucket=self._bucket)
        return answer or {}


def _say(archive: int | None, *, others: int) -> str:
    old = "expire after 1 day" if archive is None else f"go to Glacier after {_days(archive)}"
    kept = f"; {others} other rule{'' if others == 1 else 's'} kept" if others else ""
    return f"old versions {old}, incomplete uploads end after 1 day{kept}"


def _days(number: int) -> str:
    return f"{number} day{'' if number == 1 else 's'}"
