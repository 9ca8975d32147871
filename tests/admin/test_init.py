"""`init`: what it makes, what it leaves alone, and what it says."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streamjournal.admin import init_plan
from streamjournal.admin.init import InitResult, initialise
from streamjournal.core.aws import AwsClient
from streamjournal.core.errors import NotConfiguredError, SettingsError, UnavailableError
from streamjournal.core.settings import Settings, load
from tests.emulators.fixtures import unique_name

aws = pytest.mark.aws
pytestmark = pytest.mark.anyio


class Account:
    """The emulated account, as another program sees it."""

    def __init__(self, endpoint: str, client: Callable[[str, str], Any]) -> None:
        self.kinesis = client("kinesis", endpoint)
        self.s3 = client("s3", endpoint)
        self.dynamodb = client("dynamodb", endpoint)

    def stream(self, settings: Settings) -> dict[str, Any]:
        """The stream's summary."""
        answer = self.kinesis.describe_stream_summary(StreamName=settings.stream_name)
        return dict(answer["StreamDescriptionSummary"])

    def rules(self, settings: Settings) -> dict[str, dict[str, Any]]:
        """The bucket's lifecycle rules, by id."""
        answer = self.s3.get_bucket_lifecycle_configuration(Bucket=settings.bucket)
        return {rule["ID"]: rule for rule in answer["Rules"]}

    def everything(self) -> tuple[Any, Any, Any]:
        """The names of all that exists."""
        return (
            self.kinesis.list_streams()["StreamNames"],
            [bucket["Name"] for bucket in self.s3.list_buckets()["Buckets"]],
            self.dynamodb.list_tables()["TableNames"],
        )


@pytest.fixture
def account(aws_emulator: str, aws_client: Callable[[str, str], Any]) -> Account:
    """The emulated account."""
    return Account(aws_emulator, aws_client)


@pytest.fixture
def settings() -> Settings:
    """Names that nobody has used."""
    return load(
        {}, stream=unique_name("stream"), bucket=unique_name("bucket"), lease_table=unique_name("leases")
    )


@pytest.fixture(autouse=True)
def short_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for a resource asks again at once."""
    monkeypatch.setattr(init_plan, "POLL_SECONDS", 0.0)


def actions(result: InitResult) -> dict[str, str]:
    """What was done, by resource, without the names: `stream`, `stream retention`, …"""
    done = {}
    for step in result.steps:
        resource, _, aspect = step.resource.partition(":")
        done[resource.partition(" ")[0] + aspect] = step.action
    return done


def detail(result: InitResult, end: str) -> str:
    """The detail of the one step whose resource ends so."""
    (found,) = (step.detail for step in result.steps if step.resource.endswith(end))
    return found


@aws
async def test_makes_stream_bucket_and_table(account: Account, settings: Settings) -> None:
    """On an empty account everything is created, and is as the module says."""
    result = await initialise(settings)
    assert {step.action for step in result.steps} == {"created"}
    stream = account.stream(settings)
    assert (stream["StreamStatus"], stream["RetentionPeriodHours"]) == ("ACTIVE", 24)
    assert stream["StreamModeDetails"]["StreamMode"] == "ON_DEMAND"
    s3, name = account.s3, settings.bucket
    assert s3.get_bucket_versioning(Bucket=name)["Status"] == "Enabled"
    encryption = s3.get_bucket_encryption(Bucket=name)["ServerSideEncryptionConfiguration"]["Rules"]
    assert encryption[0]["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    block = s3.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"]
    assert list(block.values()) == [True] * 4
    table = account.dynamodb.describe_table(TableName=settings.lease_table)["Table"]
    assert table["KeySchema"] == [{"AttributeName": "leaseKey", "KeyType": "HASH"}]
    assert table["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"


@aws
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


@aws
@pytest.mark.parametrize("prefix", ["journals/", ""])
async def test_second_run_changes_nothing(account: Account, settings: Settings, prefix: str) -> None:
    """What is as wanted is left alone, and said to be."""
    again = load({}, **(_fields(settings) | {"prefix": prefix}))
    first = await initialise(again, retention_hours=48, shards=2)
    second = await initialise(again, retention_hours=48, shards=2)
    assert {step.action for step in second.steps} == {"unchanged"}
    assert second.environment == first.environment
    assert (await initialise(again)).steps == second.steps


@aws
async def test_dry_run_changes_nothing_and_says_the_same(account: Account, settings: Settings) -> None:
    """A dry run gives the steps that the real run then takes."""
    before = account.everything()
    dry = await initialise(settings, retention_hours=72, shards=1, dry_run=True)
    assert account.everything() == before
    real = await initialise(settings, retention_hours=72, shards=1)
    assert dry.steps == real.steps
    assert (dry.dry_run, real.dry_run) == (True, False)


@aws
async def test_dry_run_over_existing_resources_changes_nothing(account: Account, settings: Settings) -> None:
    """Neither retention nor shards nor rules are touched, though the steps say that they would be."""
    await initialise(settings, shards=1)
    dry = await initialise(settings, retention_hours=48, shards=2, archive_versions_after=5, dry_run=True)
    changed = {key for key, action in actions(dry).items() if action == "changed"}
    assert changed == {"stream", "stream retention", "bucket lifecycle"}
    stream = account.stream(settings)
    assert (stream["RetentionPeriodHours"], stream["OpenShardCount"]) == (24, 1)
    assert "NoncurrentVersionExpiration" in account.rules(settings)["streamjournal-old-versions"]


@aws
async def test_retention_goes_up_and_down_when_asked(account: Account, settings: Settings) -> None:
    """Kinesis has one call for each direction; each is a change, told with what was before."""
    await initialise(settings, retention_hours=48)
    assert account.stream(settings)["RetentionPeriodHours"] == 48
    longer = await initialise(settings, retention_hours=168)
    assert account.stream(settings)["RetentionPeriodHours"] == 168
    assert detail(longer, ": retention") == "records kept 168 hours (was 48)"
    shorter = await initialise(settings, retention_hours=24)
    assert account.stream(settings)["RetentionPeriodHours"] == 24
    assert actions(shorter)["stream retention"] == "changed"


@aws
async def test_retention_is_not_shortened_unasked(account: Account, settings: Settings) -> None:
    """A run without the option deletes no records; the setting alone may lengthen, not shorten."""
    await initialise(settings, retention_hours=168)
    assert actions(await initialise(settings))["stream retention"] == "unchanged"
    assert account.stream(settings)["RetentionPeriodHours"] == 168
    longer = load({}, **(_fields(settings) | {"retention_hours": 200}))
    assert actions(await initialise(longer))["stream retention"] == "changed"
    assert account.stream(settings)["RetentionPeriodHours"] == 200


@aws
async def test_shards_of_an_existing_stream_change_when_asked(
    account: Account, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kinesis lets a call double or halve the number at most, so it goes there in steps."""
    targets: list[int] = []

    def bounded(real: Any) -> Any:
        async def update(**parameters: Any) -> Any:
            now = account.stream(settings)["OpenShardCount"]
            assert now / 2 <= parameters["TargetShardCount"] <= now * 2
            targets.append(parameters["TargetShardCount"])
            return await real(**parameters)

        return update

    await initialise(settings, shards=1)
    _override(monkeypatch, "kinesis", update_shard_count=bounded)
    more = await initialise(settings, shards=3)
    assert detail(more, settings.stream_name) == "3 shards (was 1 shard)"
    assert account.stream(settings)["OpenShardCount"] == 3
    await initialise(settings, shards=1)
    assert account.stream(settings)["OpenShardCount"] == 1
    assert targets == [2, 3, 2, 1]


@aws
async def test_on_demand_stream_becomes_provisioned_when_asked(account: Account, settings: Settings) -> None:
    """A number of shards asks for provisioned capacity; none asked for leaves the mode alone."""
    await initialise(settings)
    result = await initialise(settings, shards=4)
    assert detail(result, settings.stream_name) == "4 shards (was on-demand)"
    stream = account.stream(settings)
    assert (stream["StreamModeDetails"]["StreamMode"], stream["OpenShardCount"]) == ("PROVISIONED", 4)
    assert actions(await initialise(settings))["stream"] == "unchanged"


@aws
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


@aws
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


@aws
async def test_an_encryption_that_somebody_chose_stays(account: Account, settings: Settings) -> None:
    """A bucket with a key of its own is encrypted better than by default."""
    account.s3.create_bucket(Bucket=settings.bucket)
    chosen = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}]}
    account.s3.put_bucket_encryption(Bucket=settings.bucket, ServerSideEncryptionConfiguration=chosen)
    result = await initialise(settings)
    assert detail(result, "encryption") == "aws:kms"
    assert actions(result)["bucket encryption"] == "unchanged"


@aws
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


@aws
async def test_bucket_outside_the_first_region_has_its_location(
    account: Account, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everywhere but in us-east-1 S3 wants the region said."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    result = await initialise(settings)
    assert account.s3.get_bucket_location(Bucket=settings.bucket)["LocationConstraint"] == "eu-west-1"
    assert detail(result, settings.bucket or "") == "in eu-west-1"


@aws
async def test_stream_by_arn_is_made_only_where_the_arn_says(account: Account, settings: Settings) -> None:
    """An ARN of another region would be made here under another ARN; so it is refused before anything."""
    before = account.everything()
    elsewhere = f"arn:aws:kinesis:ap-south-1:123456789012:stream/{settings.stream}"
    with pytest.raises(NotConfiguredError, match="AWS_REGION=ap-south-1"):
        await initialise(load({}, **(_fields(settings) | {"stream": elsewhere})))
    assert account.everything() == before
    here = f"arn:aws:kinesis:us-east-1:123456789012:stream/{settings.stream}"
    by_arn = load({}, **(_fields(settings) | {"stream": here}))
    assert actions(await initialise(by_arn))["stream"] == "created"
    assert actions(await initialise(by_arn, retention_hours=30))["stream retention"] == "changed"


@aws
async def test_table_that_cannot_hold_leases_is_refused_before_anything(
    account: Account, settings: Settings, aws_table: Callable[..., str]
) -> None:
    """A name that belongs to something else stops the run while nothing is made yet."""
    taken = load({}, **(_fields(settings) | {"lease_table": aws_table(key="id")}))
    before = account.everything()
    with pytest.raises(NotConfiguredError, match="STREAMJOURNAL_LEASE_TABLE"):
        await initialise(taken)
    assert account.everything() == before


@aws
async def test_no_bucket_name_says_what_to_set(aws_emulator: str) -> None:
    """Without a bucket and an account number there is nothing to make."""
    with pytest.raises(NotConfiguredError, match=r"STREAMJOURNAL_BUCKET.*AWS_ACCOUNT_ID"):
        await initialise(load({}, stream="agents"))


@aws
async def test_bucket_of_somebody_else_says_what_to_do(
    account: Account, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 answers 403 without a code in its body; the text gives the two ways out."""
    from botocore.exceptions import ClientError

    async def denied(**_: Any) -> None:
        raise ClientError({"Error": {"Code": "403", "Message": "Forbidden"}}, "HeadBucket")

    _override(monkeypatch, "s3", head_bucket=lambda _real: denied)
    with pytest.raises(NotConfiguredError, match=r"STREAMJOURNAL_BUCKET .* s3:ListBucket"):
        await initialise(settings)


@aws
async def test_waits_until_the_stream_is_active(
    account: Account, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream that is being created gets its retention once it is ACTIVE, not before."""
    seen: list[str] = []

    def slowly(real: Any) -> Any:
        async def describe(**parameters: Any) -> Any:
            answer = await real(**parameters)
            summary = answer["StreamDescriptionSummary"]
            summary["StreamStatus"] = "CREATING" if len(seen) < 3 else "ACTIVE"
            seen.append(summary["StreamStatus"])
            return answer

        return describe

    def recorded(real: Any) -> Any:
        async def increase(**parameters: Any) -> Any:
            seen.append("increase")
            return await real(**parameters)

        return increase

    _override(
        monkeypatch, "kinesis", describe_stream_summary=slowly, increase_stream_retention_period=recorded
    )
    await initialise(settings, retention_hours=48)
    assert seen[:4] == ["CREATING"] * 3 + ["ACTIVE"]
    assert "increase" not in seen[:4]
    assert account.stream(settings)["RetentionPeriodHours"] == 48


@aws
async def test_stream_that_never_gets_active_ends_the_wait(
    account: Account, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait is bounded, and its end says that the same command may go on."""

    def stuck(real: Any) -> Any:
        async def describe(**parameters: Any) -> Any:
            answer = await real(**parameters)
            answer["StreamDescriptionSummary"]["StreamStatus"] = "CREATING"
            return answer

        return describe

    monkeypatch.setattr(init_plan, "READY_SECONDS", 0.05)
    _override(monkeypatch, "kinesis", describe_stream_summary=stuck)
    with pytest.raises(UnavailableError, match=r"not ACTIVE .* run `streamjournal init` again"):
        await initialise(settings)


@aws
async def test_stream_that_is_being_deleted_is_refused(
    account: Account, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would be made of it would go with it."""
    await initialise(settings)

    def leaving(real: Any) -> Any:
        async def describe(**parameters: Any) -> Any:
            answer = await real(**parameters)
            answer["StreamDescriptionSummary"]["StreamStatus"] = "DELETING"
            return answer

        return describe

    _override(monkeypatch, "kinesis", describe_stream_summary=leaving)
    with pytest.raises(NotConfiguredError, match="being deleted"):
        await initialise(settings, retention_hours=48)


@aws
async def test_no_credentials_say_what_to_set(
    aws_emulator: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One clear line, before anything is made."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(NotConfiguredError, match="AWS_PROFILE"):
        await initialise(settings)


@aws
async def test_environment_lines_lead_other_commands_there(account: Account, settings: Settings) -> None:
    """A shell that takes the lines has the same settings, odd characters included."""
    odd = load({}, **(_fields(settings) | {"prefix": "agents' journals/"}))
    result = await initialise(odd, dry_run=True)
    environ = dict(shlex.split(line.removeprefix("export "))[0].split("=", 1) for line in result.environment)
    assert all(line.startswith("export ") for line in result.environment)
    assert load(environ) == odd


@pytest.mark.parametrize(
    ("arguments", "setting"),
    [
        ({"retention_hours": 23}, "retention_hours"),
        ({"retention_hours": 8761}, "retention_hours"),
        ({"shards": 0}, "shards"),
        ({"archive_versions_after": 0}, "archive_versions_after"),
    ],
)
async def test_impossible_arguments_are_refused(
    settings: Settings, arguments: dict[str, int], setting: str
) -> None:
    """Before any call: Kinesis keeps records a day at least, and a stream has a shard."""
    with pytest.raises(SettingsError) as refused:
        await initialise(settings, **arguments)
    assert refused.value.setting == setting


async def test_embedded_makes_the_folders(tmp_path: Path) -> None:
    """Home and spool, once; the files in them are made at first use."""
    settings = load({}, home=tmp_path / "deep" / "home")
    dry = await initialise(settings, dry_run=True)
    assert not settings.home_path.exists()
    first = await initialise(settings)
    assert first.steps == dry.steps
    assert [(step.resource, step.action) for step in first.steps] == [
        ("home folder", "created"),
        ("spool folder", "created"),
    ]
    assert settings.home_path.is_dir()
    assert (settings.home_path / "spool").is_dir()
    again = await initialise(settings)
    assert {step.action for step in again.steps} == {"unchanged"}
    assert again.environment == (f"export STREAMJOURNAL_HOME={settings.home_path}",)


async def test_embedded_without_spool_makes_no_folder_for_it(tmp_path: Path) -> None:
    """Spools that are off need no place."""
    result = await initialise(load({}, home=tmp_path / "home", spool="off"))
    assert [step.resource for step in result.steps] == ["home folder"]


@pytest.mark.parametrize("option", ["retention_hours", "shards", "archive_versions_after"])
async def test_options_without_effect_are_refused_embedded(tmp_path: Path, option: str) -> None:
    """Who asks for something that cannot be had learns it, and what to set instead."""
    with pytest.raises(SettingsError, match="STREAMJOURNAL_") as refused:
        await initialise(load({}, home=tmp_path / "home"), **{option: 30})
    assert refused.value.setting == option
    assert not (tmp_path / "home").exists()


async def test_home_that_cannot_be_made_says_what_to_set(tmp_path: Path) -> None:
    """One line with the reason and the variable."""
    _file(tmp_path / "file")
    with pytest.raises(NotConfiguredError, match="STREAMJOURNAL_HOME"):
        await initialise(load({}, home=tmp_path / "file" / "home"))


def test_embedded_loads_no_aws_package(tmp_path: Path) -> None:
    """The AWS packages are an extra, and take most of a second to import."""
    program = (
        "import sys, anyio\n"
        "from streamjournal.admin.init import initialise\n"
        "from streamjournal.core.settings import load\n"
        "anyio.run(initialise, load({}, home=sys.argv[1]))\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules} & {'aiobotocore', 'botocore', 'boto3'}))\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "home")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "[]"


def test_missing_aws_packages_say_what_to_install() -> None:
    """A stream without the extra is one line with the command, not an import's traceback."""
    program = (
        "import sys, anyio\n"
        "sys.modules['aiobotocore'] = None\n"
        "from streamjournal.admin.init import initialise\n"
        "from streamjournal.core.errors import NotConfiguredError\n"
        "from streamjournal.core.settings import load\n"
        "try:\n"
        "    anyio.run(initialise, load({}, stream='agents', bucket='b'))\n"
        "except NotConfiguredError as problem:\n"
        "    print(problem)\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert "pip install 'streamjournal[aws]'" in done.stdout


def _fields(settings: Settings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in settings.__struct_fields__}


def _file(path: Path) -> None:
    path.write_bytes(b"")


def _override(monkeypatch: pytest.MonkeyPatch, service: str, **operations: Callable[[Any], Any]) -> None:
    """Put something between the adapters and some of a service's operations."""
    get = AwsClient.get

    async def overridden(self: AwsClient) -> Any:
        client = await get(self)
        if self.service != service:
            return client

        class Proxy:
            def __getattr__(self, name: str) -> Any:
                real = getattr(client, name)
                return operations[name](real) if name in operations else real

        return Proxy()

    monkeypatch.setattr(AwsClient, "get", overridden)
