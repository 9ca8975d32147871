"""Redaction: what is a secret, what is none, and that no way into the spool leaves it out."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamjournal import Journal
from streamjournal.emit.redaction import MARK, REDACTED, Redaction, bounded_json, is_secret_name

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n-----END RSA PRIVATE KEY-----"


def cleaned(details: Any) -> Any:
    """What becomes of details."""
    return msgspec.json.decode(Redaction().encode(details))


@pytest.mark.parametrize(
    "name",
    ["password", "PASSWORD", "dbPassword", "db-password", "token", "access_token", "Authorization", "apiKey",
     "X-Api-Key", "api_key", "APIKEY", "aws_secret_access_key", "AWS_SECRET_ACCESS_KEY", "accessKeyId",
     "Cookie", "Set-Cookie", "privateKey", "client_secret", "passphrase", "credentials", "pwd"],
)  # fmt: skip
def test_names_of_secrets(name: str) -> None:
    """Whatever is kept under them is taken out, and said to be."""
    assert is_secret_name(name)
    assert cleaned({"a": {name: "x"}}) == {"a": {name: REDACTED}, MARK: [f"a.{name}"]}
    assert cleaned({name: {"deep": ["x"]}})[name] == REDACTED


@pytest.mark.parametrize(
    "name",
    ["tokens_sent", "max_tokens", "tokenizer", "secretary", "keyboard", "key", "api", "passenger", "author",
     "authorized", "cookiecutter", "monkey_api", "", "日本", "primary_key", "accessibility"],
)  # fmt: skip
def test_names_that_only_look_like_it(name: str) -> None:
    """Whole words decide."""
    assert not is_secret_name(name)
    assert cleaned({name: "x"}) == {name: "x"}


def test_counts_of_tokens_are_no_secrets() -> None:
    """A number under `token` is one of a model's, as a rule; under `password` it is a secret all the same."""
    details = {"token_count": 53, "token": 7, "password": None, "secret": False}
    assert cleaned(details) == details
    assert cleaned({"password": 1234})["password"] == REDACTED


@pytest.mark.parametrize(
    ("text", "rest", "kind"),
    [
        ("key AKIAIOSFODNN7EXAMPLE.", "key <redacted aws_key>.", "aws_key"),
        ("ASIAIOSFODNN7EXAMPLE", "<redacted aws_key>", "aws_key"),
        ("curl -H 'Authorization: Bearer abc.DEF-123=='", None, "bearer"),
        (f"got {JWT} back", "got <redacted jwt> back", "jwt"),
        (f"x {PEM} y", "x <redacted private_key> y", "private_key"),
        ("-----BEGIN PRIVATE KEY-----\ncut off", "<redacted private_key>", "private_key"),
    ],
)
def test_forms_of_secrets(text: str, rest: str | None, kind: str) -> None:
    """They are recognised wherever they stand; the rest of the text stays."""
    found = cleaned({"a": [1, {"log": text}]})
    assert found[MARK] == [f"a[1].log: {kind}"]
    assert found["a"][1]["log"] == (rest or "curl -H 'Authorization: Bearer <redacted bearer>'")


@pytest.mark.parametrize(
    "text",
    [
        "AKIA",
        "AKIAshort",
        "BEARER of news",
        "Bearer short",
        "eyJust.text",
        "BEGIN PRIVATE",
        "xAKIAIOSFODNN7EXAMPLE",
    ],
)
def test_texts_that_only_look_like_it(text: str) -> None:
    """Ordinary text is left alone."""
    assert cleaned({"log": text}) == {"log": text}


class Odd:
    """An object that becomes JSON by its text."""

    def __repr__(self) -> str:
        return "AKIAIOSFODNN7EXAMPLE"


@dataclasses.dataclass
class Login:
    """An object that becomes JSON by its fields."""

    user: str
    password: str


@pytest.mark.parametrize(
    "details",
    [
        {"login": Login("ada", "hunter2")},
        Login("ada", "hunter2"),
        {"raw": msgspec.Raw(b'{"password":"hunter2"}')},
        {"list": [({"x": [{"password": "hunter2"}]},)]},
        {"password": "hunter2", "odd": Odd()},
        {("a", "b"): {"password": "hunter2"}},
        "Bearer hunter2hunter2",
        ["Bearer hunter2hunter2"],
        {"set": {"Bearer hunter2hunter2"}},
        {"text": f"{'x' * 1_000_000} Bearer hunter2hunter2"},
    ],
)
@pytest.mark.parametrize("spool", [None, "off"])
def test_no_way_in_leaves_it_out(details: Any, spool: str | None) -> None:
    """Plain dicts, objects, raw JSON, texts, large ones: what is emitted is looked at, spool or none."""
    with Journal(spool=spool) as journal:
        journal.emit("X", session_id="first")  # after it, emit goes its short way
        journal.emit("X", session_id="s", details=details)
        (entry,) = journal.read("s").all()
        assert "hunter2" not in str(entry.details)
        assert "AKIA" not in str(entry.details)
        assert entry.details[MARK]


def test_the_envelope_is_not_touched() -> None:
    """Sessions, tools and event types are what the journal works by, whatever they look like."""
    name = "AKIAIOSFODNN7EXAMPLE"
    with Journal() as journal:
        for _ in range(2):
            journal.emit(name, session_id=name, tool_name=name, details={"log": "fine"})
        entries = journal.read(name).all()
    assert [(e.event_type, e.tool_name, e.details) for e in entries] == [(name, name, {"log": "fine"})] * 2


def test_it_can_be_turned_off() -> None:
    """A setting, for those who know why."""
    with Journal(redact=False) as journal:
        journal.emit("X", session_id="s", details={"password": "x"})
        assert journal.read("s").all()[0].details == {"password": "x"}


def test_lines_of_other_tools_are_redacted_on_request_only() -> None:
    """An import keeps what it is given, byte for byte, unless it is asked to look."""
    line = b'{"session_id":"s","event_type":"A","details":{"n":1.50,"password":"x"},"token":"unknown field"}'
    with Journal() as journal:
        journal.emit_line(line)
        journal.emit_line(line, redact=True)
        plain, clean = journal.read("s").all()
    assert b'{"n":1.50,"password":"x"}' in plain.line
    assert clean.details == {"n": 1.5, "password": REDACTED, MARK: ["password"]}


def test_the_users_function_comes_after() -> None:
    """It gets JSON values without the secrets that were recognised, for every entry."""
    seen: list[dict[str, Any]] = []

    def note(details: dict[str, Any]) -> dict[str, Any]:
        seen.append(dict(details))
        return {"kept": details.get("a")}

    with Journal(redact_with=note) as journal:
        journal.emit("X", session_id="s", details={"a": (1, 2), "token": "t"})
        journal.emit("X", session_id="s")
        entries = journal.read("s").all()
    assert seen[0] == {"a": [1, 2], "token": REDACTED, MARK: ["token"]}
    assert [entry.details for entry in entries] == [{"kept": [1, 2]}, {}]


def test_a_users_function_that_raises_lets_nothing_pass() -> None:
    """Nor does it fail the agent."""

    def broken(details: dict[str, Any]) -> dict[str, Any]:
        raise KeyError(details["secret"])

    with Journal(redact_with=broken) as journal:
        journal.emit("X", session_id="s", details={"a": "private"})
        (entry,) = journal.read("s").all()
    assert entry.details == {MARK: ["all: the redaction function raised KeyError"]}


def test_a_dict_that_another_thread_changes() -> None:
    """It never fails the agent. (What is put into it between the look and the encoding may pass.)"""
    details: dict[str, Any] = {}
    stop = threading.Event()

    def change() -> None:
        n = 0
        while not stop.is_set():
            details[f"key{n % 50}"] = {"password": "hunter2"}
            details.pop(f"key{(n + 25) % 50}", None)
            n += 1

    thread = threading.Thread(target=change)
    thread.start()
    try:
        with Journal() as journal:
            for _ in range(300):
                journal.emit("X", session_id="s", details=details)
            assert len(journal.read("s").all()) == 300
    finally:
        stop.set()
        thread.join()


def test_secrets_of_a_known_form_in_names() -> None:
    """A name can be one, too."""
    found = cleaned({"AKIAIOSFODNN7EXAMPLE": 1, "h": {"Bearer abcdefghijkl": 2}})
    assert found["<redacted aws_key>"] == 1
    assert "abcdefghijkl" not in str(found)
    assert "AKIA" not in str(found)


@pytest.mark.parametrize("raw", [b"1e400", b"{bad", b"[" * 5000])
def test_raw_json_that_is_none_does_not_fail_the_agent(raw: bytes) -> None:
    """What cannot be looked through does not pass, and raises nothing."""
    with Journal() as journal:
        journal.emit("X", session_id="first")
        journal.emit("X", session_id="s", details={"b": msgspec.Raw(raw)})
        (entry,) = journal.read("s").all()
    assert entry.details[MARK][0].startswith("all:")


@pytest.mark.parametrize("text", ["BEGIN " * 30_000, "-eyJaaaaaaaaaaaa" * 15_000, "-----BEGIN " * 15_000])
def test_texts_that_would_take_a_pattern_long(text: str) -> None:
    """The work grows with the text, not with its square: here that would be minutes."""
    Redaction.suspects_text(text.encode())
    assert cleaned({"log": text, "token": "x"})["token"] == REDACTED


@pytest.mark.parametrize(
    "value",
    [
        {"password": "hunter2", "pad": "x" * 5000},
        [{"api_key": "hunter2"}, "x" * 5000],
        "\nBearer hunter2hunter2" + "x" * 3000 + "y" * 1090,
    ],
)
def test_what_is_cut_is_cleaned_before(value: Any) -> None:
    """A name in the middle of a text protects nothing any more."""
    cut = msgspec.json.decode(bounded_json(value, 4096))
    assert cut["$cut"] > 4096
    assert "hunter2" not in cut["start"]


def test_a_long_sequence_is_shown_by_its_beginning() -> None:
    """Without going through all of it, and an object of somebody's without going through it at all."""

    class Rows:
        def __len__(self) -> int:
            return 10**9

        def __iter__(self) -> Any:
            raise AssertionError("it may take long")

        def __repr__(self) -> str:
            return "Rows(1e9)"

    assert msgspec.json.decode(bounded_json([1] * 10**6, 1000))["$cut"] == "1000000 items"
    assert msgspec.json.decode(bounded_json(Rows(), 1000)) == {
        "$cut": "1000000000 items",
        "start": '"Rows(1e9)"',
    }
    assert msgspec.json.decode(bounded_json({"a": [1, 2]}, 1000)) == {"a": [1, 2]}


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text() | st.just("AKIAIOSFODNN7EXAMPLE"),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text() | st.sampled_from(["password", "token", "n"]), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), values))
def test_what_is_clean_stays_as_it_is_and_once_is_enough(details: dict[str, Any]) -> None:
    """Nothing is changed without a mark, and what was cleaned has nothing more to take out."""
    once = cleaned(details)
    if MARK not in once:
        assert once == details
    assert "AKIAIOSFODNN7EXAMPLE" not in str(once)
    twice = cleaned(once)
    assert {key: value for key, value in twice.items() if key != MARK} == {
        key: value for key, value in once.items() if key != MARK
    }
