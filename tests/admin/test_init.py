"""`init` as a whole: once, twice, dry, and embedded."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from streamjournal.admin.init import initialise
from streamjournal.core.errors import NotConfiguredError, SettingsError
from streamjournal.core.settings import Settings, load
from tests.admin.account import Account, actions, fields

aws = pytest.mark.aws


@aws
@pytest.mark.anyio
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
@pytest.mark.parametrize("prefix", ["journals/", ""])
@pytest.mark.anyio
async def test_second_run_changes_nothing(account: Account, settings: Settings, prefix: str) -> None:
    """What is as wanted is left alone, and said to be."""
    again = load({}, **(fields(settings) | {"prefix": prefix}))
    first = await initialise(again, retention_hours=48, shards=2)
    second = await initialise(again, retention_hours=48, shards=2)
    assert {step.action for step in second.steps} == {"unchanged"}
    assert second.environment == first.environment
    assert (await initialise(again)).steps == second.steps


@aws
@pytest.mark.anyio
async def test_dry_run_changes_nothing_and_says_the_same(account: Account, settings: Settings) -> None:
    """A dry run gives the steps that the real run then takes."""
    before = account.everything()
    dry = await initialise(settings, retention_hours=72, shards=1, dry_run=True)
    assert account.everything() == before
    real = await initialise(settings, retention_hours=72, shards=1)
    assert dry.steps == real.steps
    assert (dry.dry_run, real.dry_run) == (True, False)


@aws
@pytest.mark.anyio
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
@pytest.mark.anyio
async def test_table_that_cannot_hold_leases_is_refused_before_anything(
    account: Account, settings: Settings, aws_table: Callable[..., str]
) -> None:
    """A name that belongs to something else stops the run while nothing is made yet."""
    taken = load({}, **(fields(settings) | {"lease_table": aws_table(key="id")}))
    before = account.everything()
    with pytest.raises(NotConfiguredError, match="STREAMJOURNAL_LEASE_TABLE"):
        await initialise(taken)
    assert account.everything() == before


@aws
@pytest.mark.anyio
async def test_no_credentials_say_what_to_set(
    aws_emulator: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One clear line, before anything is made."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(NotConfiguredError, match="AWS_PROFILE"):
        await initialise(settings)


@aws
@pytest.mark.anyio
async def test_environment_lines_lead_other_commands_there(account: Account, settings: Settings) -> None:
    """A shell that takes the lines has the same settings, odd characters included."""
    odd = load({}, **(fields(settings) | {"prefix": "agents' journals/"}))
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
@pytest.mark.anyio
async def test_impossible_arguments_are_refused(
    settings: Settings, arguments: dict[str, int], setting: str
) -> None:
    """Before any call: Kinesis keeps records a day at least, and a stream has a shard."""
    with pytest.raises(SettingsError) as refused:
        await initialise(settings, **arguments)
    assert refused.value.setting == setting


@pytest.mark.anyio
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


@pytest.mark.anyio
async def test_embedded_without_spool_makes_no_folder_for_it(tmp_path: Path) -> None:
    """Spools that are off need no place."""
    result = await initialise(load({}, home=tmp_path / "home", spool="off"))
    assert [step.resource for step in result.steps] == ["home folder"]


@pytest.mark.parametrize("option", ["retention_hours", "shards", "archive_versions_after"])
@pytest.mark.anyio
async def test_options_without_effect_are_refused_embedded(tmp_path: Path, option: str) -> None:
    """Who asks for something that cannot be had learns it, and what to set instead."""
    with pytest.raises(SettingsError, match="STREAMJOURNAL_") as refused:
        await initialise(load({}, home=tmp_path / "home"), **{option: 30})
    assert refused.value.setting == option
    assert not (tmp_path / "home").exists()


@pytest.mark.anyio
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


def _file(path: Path) -> None:
    path.write_bytes(b"")
