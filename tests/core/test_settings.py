"""Settings: where a value comes from, and what is said of one that cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamjournal.core.errors import NotConfiguredError, SettingsError
from streamjournal.core.settings import Settings, load, variable_of

SAMPLES = {
    "stream": ("agents", "agents"),
    "bucket": ("b", "b"),
    "prefix": ("p/", "p/"),
    "lease_table": ("t", "t"),
    "home": ("/srv/sj", "/srv/sj"),
    "spool": ("off", "off"),
    "shards": ("2", 2),
    "retention_hours": ("48", 48),
    "linger": ("0.5", 0.5),
    "buffer_bytes": ("1024", 1024),
    "overflow": ("block", "block"),
    "block_timeout": ("2", 2.0),
    "exit_timeout": ("0", 0.0),
    "flush_interval": ("7.5", 7.5),
    "session_bytes": ("1", 1),
    "unflushed_bytes": ("2", 2),
    "worker_bytes": ("3", 3),
    "lease_seconds": ("4", 4.0),
    "metrics_port": ("9464", 9464),
    "metrics_address": ("0.0.0.0", "0.0.0.0"),
    "log_level": ("debug", "debug"),
    "redact": ("false", False),
}


def test_defaults_are_embedded() -> None:
    """Without anything set everything stays on this machine."""
    settings = load({})
    assert settings == Settings()
    assert settings.embedded
    assert settings.home_path == Path("~/.streamjournal").expanduser()


@pytest.mark.parametrize("name", Settings.__struct_fields__)
def test_every_setting_has_its_variable(name: str) -> None:
    """The variable is STREAMJOURNAL_ and the name in capitals, and its text is converted."""
    text, value = SAMPLES[name]
    assert getattr(load({f"STREAMJOURNAL_{name.upper()}": text}), name) == value
    assert getattr(Settings(), name) != value


@pytest.mark.parametrize("name", Settings.__struct_fields__)
def test_every_setting_is_documented(name: str) -> None:
    """A setting that the docstring does not name is one that nobody finds."""
    assert f"        {name}: " in (Settings.__doc__ or "")


def test_argument_beats_environment_beats_default() -> None:
    """The nearest word counts; None as an argument means not given."""
    environ = {"STREAMJOURNAL_PREFIX": "env/", "STREAMJOURNAL_SHARDS": "2"}
    assert load(environ, prefix="arg/").prefix == "arg/"
    assert load(environ, prefix=None).prefix == "env/"
    assert load({}, prefix=None).prefix == "journals/"
    assert load(environ, prefix="arg/").shards == 2


def test_empty_variable_counts_as_unset() -> None:
    """As shells and compose files leave them."""
    assert load({"STREAMJOURNAL_STREAM": "", "STREAMJOURNAL_SHARDS": ""}) == Settings()


def test_bucket_has_an_older_name() -> None:
    """JOURNAL_BUCKET works, and the newer name wins over it."""
    assert load({"JOURNAL_BUCKET": "old"}).bucket == "old"
    assert load({"JOURNAL_BUCKET": "old", "STREAMJOURNAL_BUCKET": "new"}).bucket == "new"
    assert load({"JOURNAL_BUCKET": "old"}, bucket="argument").bucket == "argument"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("shards", "many"),
        ("shards", "0"),
        ("shards", 1025),
        ("retention_hours", "8761"),
        ("linger", "-1"),
        ("linger", "nan"),
        ("overflow", "explode"),
        ("buffer_bytes", 0),
        ("lease_seconds", "0"),
        ("stream", 7),
    ],
)
def test_wrong_value_names_setting_value_and_variable(name: str, value: object) -> None:
    """One line says which setting, what stood there, why it is wrong, and the variable's name."""
    with pytest.raises(SettingsError) as refused:
        load({}, **{name: value})
    assert refused.value.setting == name
    assert repr(value) in str(refused.value)
    assert f"STREAMJOURNAL_{name.upper()}" in str(refused.value)
    assert "\n" not in str(refused.value)
    if isinstance(value, str):
        with pytest.raises(SettingsError, match=name):
            load({variable_of(name): value})


def test_unknown_argument_lists_what_there_is() -> None:
    """A misspelt setting is an error that shows the right ones."""
    with pytest.raises(SettingsError, match=r"buket: is no setting; there are: stream, bucket,"):
        load({}, buket="x")


def test_paths_are_taken_as_arguments() -> None:
    """A pathlib path is as good as text."""
    assert load({}, home=Path("/srv/sj")).home_path == Path("/srv/sj")


def test_spool_lies_under_home_unless_said_otherwise() -> None:
    """Unset, off, or a folder with its ~ resolved."""
    assert load({}, home="/srv/sj").spool_path == Path("/srv/sj/spool")
    assert load({}, spool="off").spool_path is None
    assert load({}, spool="~/spool").spool_path == Path("~/spool").expanduser()


def test_flush_interval_depends_on_the_backend() -> None:
    """A write to S3 is paid for, one to a file is not; what is set wins, zero included."""
    assert load({}).flush_seconds == 1.0
    assert load({}, stream="agents").flush_seconds == 30.0
    assert load({}, stream="agents", flush_interval=0).flush_seconds == 0.0


def test_bucket_name_by_setting_account_or_arn() -> None:
    """The default is named after the account, from the environment or from the stream's ARN."""
    arn = "arn:aws:kinesis:eu-west-1:123456789012:stream/agents"
    assert load({}, stream="agents", bucket="b").bucket_name({"AWS_ACCOUNT_ID": "1"}) == "b"
    assert load({}, stream="agents").bucket_name({"AWS_ACCOUNT_ID": "42"}) == "session-journal-42"
    assert load({}, stream=arn).bucket_name({}) == "session-journal-123456789012"
    with pytest.raises(NotConfiguredError, match=r"STREAMJOURNAL_BUCKET.*AWS_ACCOUNT_ID"):
        load({}, stream="agents").bucket_name({})


@pytest.mark.parametrize(
    ("stream", "name"),
    [("agents", "agents"), ("arn:aws:kinesis:eu-west-1:123456789012:stream/agents", "agents"), (None, "")],
)
def test_stream_name_of_a_name_or_an_arn(stream: str | None, name: str) -> None:
    """An ARN's last part is the stream's name."""
    assert load({}, stream=stream).stream_name == name
