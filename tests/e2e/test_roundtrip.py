"""What the whole thing is for: what goes in comes out, before and after the worker has run."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from tests.e2e.commands import done_well, objects, run
from tests.emulators.fixtures import unique_name

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

ODD_SESSIONS = [
    "swe-agent-claude35/astropy__astropy-12907",
    "../x",
    "a/b",
    "a%2Fb",
    "日本",
    "CON",
    ".",
    "..",
    "🦊" * 64,
    "b" * 256,
    "b" * 255 + "c",
    "-n",
    "with space",
    "~",
    "tilde~" + "0" * 64,
]
SESSIONS = ODD_SESSIONS + [f"session-{n}" for n in range(40 - len(ODD_SESSIONS))]
ENTRIES = 2_000
_TEXTS = [
    "plain",
    "naïve café",
    "日本語 🦊",
    'quotes " and \\',
    "line\nbreak\ttab",
    "\u2028\u202e\x00",
    "{}",
    "",
]


def make_lines(seed: int) -> list[bytes]:
    """A file of entries, in the order of which each session's journal has to be."""
    rng = random.Random(seed)
    lines = [_line(rng, n, rng.choice(SESSIONS)) for n in range(ENTRIES - len(SESSIONS))]
    lines += [_line(rng, ENTRIES - n, session) for n, session in enumerate(SESSIONS)]  # each at least once
    huge = {"event_type": "HUGE", "session_id": SESSIONS[0], "details": {"text": "é" * 750_000}}
    lines.insert(ENTRIES // 2, msgspec.json.encode(huge))  # 1.5 MB, more than a record can hold
    return lines


def _line(rng: random.Random, n: int, session_id: str) -> bytes:
    fields: dict[str, Any] = {
        "session_id": session_id,
        "event_type": rng.choice(["TOOL_START", "TOOL_END", "TOOL_ERROR", "NOTE"]),
        "tool_name": rng.choice([None, "", "run_eda", "日本"]),
        "details": {
            "n": n,
            "text": rng.choice(_TEXTS),
            "nested": [{"x": rng.random()}, None, True, -0.0, 2**60],
        },
    }
    if rng.random() < 0.8:
        fields["timestamp"] = rng.choice(
            ["2026-11-22T13:12:01.5Z", "2026-11-22 13:12:01", "2026-11-22T13:12:01+02:00", f"at {n}"]
        )
    if rng.random() < 0.5:
        fields["level"] = rng.choice(["DEBUG", "INFO", "WARNING", "ERROR", "custom"])
    if rng.random() < 0.3:
        fields["id"] = rng.choice([f"own-{n}", n, "abcdefghij-1"])  # the last looks like one of ours
    if rng.random() < 0.1:
        fields["unknown_field"] = {"kept": n}
    return msgspec.json.encode(fields)


@pytest.fixture(params=["embedded", pytest.param("aws", marks=pytest.mark.aws)])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A fresh journal, chosen by the environment as a user chooses it."""
    if request.param == "aws":
        request.getfixturevalue("aws_emulator")
        monkeypatch.setenv("STREAMJOURNAL_STREAM", unique_name("stream"))
        monkeypatch.setenv("STREAMJOURNAL_BUCKET", unique_name("bucket"))
        monkeypatch.setenv("STREAMJOURNAL_LEASE_TABLE", unique_name("leases"))
        done_well("init")
    return request.param


def test_everything_comes_out_the_same_before_and_after_the_drain(backend: str) -> None:
    """Nothing is lost, doubled, reordered or altered; a merged read does not show where the worker is."""
    lines = make_lines(seed=7)
    written = run("write", "--jsonl", "-", stdin=b"\n".join(lines) + b"\n")
    assert (written.returncode, written.stdout) == (0, f"accepted {len(lines)}, refused 0\n".encode())
    # one command takes seconds to start on AWS, so there only the odd ones are read, twice each
    shown = SESSIONS if backend == "embedded" else ODD_SESSIONS[:9]

    listed_before = done_well("sessions", "-o", "json")
    before = {session: done_well("read", "-o", "json", "--", session) for session in shown}
    done_well("worker", "--drain")
    listed_after = done_well("sessions", "-o", "json")
    after = {session: done_well("read", "-o", "json", "--", session) for session in shown}
    in_journal = done_well("read", "--journal-only", "-o", "json", "--", SESSIONS[0])

    assert after == before
    assert in_journal == before[SESSIONS[0]]
    assert _comparable(listed_after) == _comparable(listed_before)
    _check_counts(listed_after, lines)
    for session, stdout in after.items():
        _check_entries(
            objects(stdout), [e for e in map(msgspec.json.decode, lines) if e["session_id"] == session]
        )


def _comparable(stdout: bytes) -> dict[str, dict]:
    """The list by session, without what may differ: bytes differ where details went to a blob."""
    listed = {one.pop("session_id"): one for one in objects(stdout)}
    listed[SESSIONS[0]].pop("bytes")
    return listed


def _check_counts(listed: bytes, lines: list[bytes]) -> None:
    entries: dict[str, int] = {}
    errors: dict[str, int] = {}
    for line in map(msgspec.json.decode, lines):
        entries[line["session_id"]] = entries.get(line["session_id"], 0) + 1
        errors[line["session_id"]] = errors.get(line["session_id"], 0) + (line.get("level") == "ERROR")
    assert {one["session_id"]: one["entries"] for one in objects(listed)} == entries
    assert {one["session_id"]: one["errors"] for one in objects(listed)} == errors


def _check_entries(found: list[dict], given: list[dict]) -> None:
    assert len(found) == len(given)
    assert [one["id"].split("-")[1] for one in found] == [str(n) for n in range(1, len(given) + 1)]
    for one, was in zip(found, given, strict=True):
        assert one["details"] == was["details"]
        assert (one["event_type"], one["tool_name"]) == (was["event_type"], was.get("tool_name"))
        assert one["level"] == was.get("level", "INFO")
        assert one["timestamp"] == was.get("timestamp", one["timestamp"])
        assert one["timestamp"]
        assert one.get("source_id") == was.get("id")
        assert one.get("unknown_field") == was.get("unknown_field")
