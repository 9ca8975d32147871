"""What is shown of a text: everything in it, and nothing that works behind the reader's back."""

from __future__ import annotations

import json

import pytest

from streamjournal.core.visible import visible


@pytest.mark.parametrize("text", ["", "plain", "Zoë 日本 ✓", "👩‍🔬"[0], "family ❤️"])
def test_what_is_seen_stays(text: str) -> None:
    """Ordinary text of any script, emoji with their presentation selector included, is not touched."""
    assert visible(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", "\\u001b[2J"),
        ("a\nb", "a\\u000ab"),
        ("\u202etxt.exe", "\\u202etxt.exe"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("no\xa0break", "no\\u00a0break"),
        ("\U000e0041", "\\udb40\\udc41"),
        ("x\U000e0101", "x\\udb40\\udd01"),
        ("x\ufe01", "x\\ufe01"),
        ("\u3164", "\\u3164"),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_is_not_seen_is_told(text: str, shown: str) -> None:
    """Control, bidirectional, zero-width, tag and filler characters become their escapes."""
    assert visible(text) == shown


def test_json_stays_the_same_json() -> None:
    """A line of JSON means after it what it meant before."""
    value = {"k\u2066ey": "a\u202eb\x7f\U000e0041 \\u202e \U0001f600"}
    assert json.loads(visible(json.dumps(value, ensure_ascii=False))) == value
