"""`init` and the bucket: what makes it safe and cheap, and what of others' it keeps."""

from __future__ import annotations

from typing import Any

import pytest

from streamjournal.admin.init import initialise
from streamjournal.core.errors import NotConfiguredError
from streamjournal.core.settings import Settings, load
from tests.admin.account import Account, actions, detail, override

pytestmark = [pytest.mark.anyio, pytest.mark.aws]


async def test_lifecycle_rules_are_bound_to_what_is_ours(account: Account, settings: Settings) -> None:
    """Old versions and unfinished uploads of journals go after a day, probes' objects likewise."""
    await initialise(settings)
    rules = account.rules(settings)
    assert {name: rule["Filter"]["Prefix"] for name, rule in rules.items()} == {
        "streamjournal-old-versions": "journals/",
        "streamjournal-uploads": "journals/",
        "streamjournal-scratch": "scratch/",
    }
    old = rules["streamjournal-old-versions"]
    assert old["NoncurrentVersionExpiration"] == {"NoncurrentDays": 1}
    assert "Expiration" not in old  # the journals themselves never expire
    assert rules["streamjournal-uploads"]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}
    assert {rule["Status"] for rule in rules.values()} == {"Enabled"}


async def test_rules_of_others_stay(account: Account, settings: Settings) -> None:
    """The bucket's own rules, of the old form too, are kept beside ours, whatever ours become."""
    account.s3.create_bucket(Bucket=settings.bucket)
    foreign = [
        {"ID": "logs", "Status": "Enabled", "Filter": {"Prefix": "logs/"}, "Expiration": {"Days": 30}},
        {"ID": "old form", "Status": "Disabled", "Prefix": "tmp/", "Expiration": {"Days": 7}},
    ]
    account.s3.put_bucket_lifecycle_configuration(
        Bucket=settings.bucket, LifecycleConfiguration={"Rules": foreign}
    )
    result = await initialise(settings)
    assert actions(result)["bucket"] == "unchanged"
    assert actions(result)["bucket lifecycle"] == "changed"
    assert detail(result, "lifecycle").endswith("2 other rules kept")
    for archive in (None, 30):
        await initialise(settings, archive_versions_after=archive)
        rules = account.rules(settings)
        assert len(rules) == 5
        assert rules["logs"] == foreign[0]
        old_form = rules["old form"]
        assert (old_form["Status"], old_form["Expiration"]) == ("Disabled", {"Days": 7})
        assert old_form["Filter"]["Prefix"] == "tmp/"
    assert actions(await initialise(settings))["bucket lifecycle"] == "unchanged"


async def test_archive_replaces_expiry_and_is_not_undone_unasked(
    account: Account, settings: Settings
) -> None:
    """Old versions that were to be kept in Glacier do not expire because an option was left out."""
    await initialise(settings)
    archived = await initialise(settings, archive_versions_after=30)
    rule = account.rules(settings)["streamjournal-old-versions"]
    assert rule["NoncurrentVersionTransitions"] == [{"NoncurrentDays": 30, "StorageClass": "GLACIER"}]
    assert "NoncurrentVersionExpiration" not in rule
    assert "Glacier after 30 days" in detail(archived, "lifecycle")
    again = await initialise(settings)
    assert actions(again)["bucket lifecycle"] == "unchanged"
    assert account.rules(settings)["streamjournal-old-versions"] == rule


async def test_an_encryption_that_somebody_chose_stays(account: Account, settings: Settings) -> None:
    """A bucket with a key of its own is encrypted better than by default."""
    account.s3.create_bucket(Bucket=settings.bucket)
    chosen = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}]}
    account.s3.put_bucket_encryption(Bucket=settings.bucket, ServerSideEncryptionConfiguration=chosen)
    result = await initialise(settings)
    assert detail(result, "encryption") == "aws:kms"
    assert actions(result)["bucket encryption"] == "unchanged"


async def test_a_bucket_open_to_the_public_is_closed(account: Account, settings: Settings) -> None:
    """A half-open bucket becomes a closed one, and versioning that was suspended goes on."""
    account.s3.create_bucket(Bucket=settings.bucket)
    acls = {"BlockPublicAcls": True, "IgnorePublicAcls": True}
    half = acls | {"BlockPublicPolicy": False, "RestrictPublicBuckets": False}
    account.s3.put_public_access_block(Bucket=settings.bucket, PublicAccessBlockConfiguration=half)
    account.s3.put_bucket_versioning(Bucket=settings.bucket, VersioningConfiguration={"Status": "Suspended"})
    result = await initialise(settings)
    assert actions(result)["bucket public access"] == actions(result)["bucket versioning"] == "changed"
    block = account.s3.get_public_access_block(Bucket=settings.bucket)["PublicAccessBlockConfiguration"]
    assert all(block.values())


async def test_bucket_outside_the_first_region_has_its_location(
    account: Account, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everywhere but in us-east-1 S3 wants the region said."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    result = await initialise(settings)
    assert account.s3.get_bucket_location(Bucket=settings.bucket)["LocationConstraint"] == "eu-west-1"
    assert detail(result, settings.bucket or "") == "in eu-west-1"


async def test_no_bucket_name_says_what_to_set(aws_emulator: str) -> None:
    """Without a bucket and an account number there is nothing to make."""
    with pytest.raises(NotConfiguredError, match=r"STREAMJOURNAL_BUCKET.*AWS_ACCOUNT_ID"):
        await initialise(load({}, stream="agents"))


async def test_bucket_of_somebody_else_says_what_to_do(
    account: Account, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 answers 403 without a code in its body; the text gives the two ways out."""
    from botocore.exceptions import ClientError

    async def denied(**_: Any) -> None:
        raise ClientError({"Error": {"Code": "403", "Message": "Forbidden"}}, "HeadBucket")

    override(monkeypatch, "s3", head_bucket=lambda _real: denied)
    with pytest.raises(NotConfiguredError, match=r"STREAMJOURNAL_BUCKET .* s3:ListBucket"):
        await initialise(settings)
