"""Blocks that sandboxed code prints, taken out of its output."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamjournal.agents.markers import BEGIN, END, extract


def block(text: str, newline: str = "\n") -> str:
    """A block as a program prints it."""
    return f"{BEGIN}{newline}{text}{newline}{END}{newline}"


def test_a_block_becomes_an_entry_and_the_rest_stays() -> None:
    """Output before and after it is as the program printed it."""
    found = extract("before\n" + block('{"event_type":"A","details":{"n":1}}') + "after\n")
    assert found == ("before\nafter\n", [{"event_type": "A", "details": {"n": 1}}], [])


def test_output_without_blocks_is_untouched() -> None:
    """Also when it is empty, or holds a marker's half."""
    for output in ("", "plain\n", "===JOURNAL", END):
        assert extract(output) == (output, [], [])


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_blocks_come_in_order_whatever_ends_their_lines(newline: str) -> None:
    """Python on Windows, and notebooks, print CRLF."""
    output = "a" + newline + "".join(block(json.dumps({"n": n}), newline) for n in range(3)) + "b" + newline
    assert extract(output) == (f"a{newline}b{newline}", [{"n": 0}, {"n": 1}, {"n": 2}], [])


def test_json_over_several_lines_is_one_entry() -> None:
    """`json.dumps(…, indent=2)` is what many programs print."""
    assert extract(block(json.dumps({"a": {"b": 1}}, indent=2))).entries == [{"a": {"b": 1}}]


@pytest.mark.parametrize(
    ("text", "reason"), [("{oops", "no JSON"), ("", "no JSON"), ("[1]", "no object"), ("7", "no object")]
)
def test_a_block_that_is_no_entry_stays_in_the_output_and_is_told_of(text: str, reason: str) -> None:
    """So that nobody loses what the program meant to say; blocks beside it count."""
    bad = block(text)
    found = extract(block('{"n":1}') + bad + block('{"n":2}'))
    assert found.output == bad
    assert found.entries == [{"n": 1}, {"n": 2}]
    assert len(found.malformed) == 1
    assert reason in found.malformed[0]


def test_a_block_without_its_end_stays_and_is_told_of() -> None:
    """The program died, or its output was cut; what came whole before it counts."""
    found = extract(block('{"n":1}') + BEGIN + '\n{"n":2')
    assert found.output == BEGIN + '\n{"n":2'
    assert found.entries == [{"n": 1}]
    assert found.malformed == ["a block without its end"]


def test_a_cut_block_does_not_swallow_the_next_one() -> None:
    """A program that died in a block was started again: the second's block is whole."""
    found = extract(f'{BEGIN}\n{{"n":1\n' + block('{"n":2}'))
    assert found.entries == [{"n": 2}]
    assert found.malformed == ["a block without its end"]
    assert found.output == f'{BEGIN}\n{{"n":1\n'


def test_each_problem_is_told_of() -> None:
    """A malformed block does not hide that another one has no end."""
    found = extract(block("oops") + BEGIN)
    assert len(found.malformed) == 2
    assert found.malformed[1] == "a block without its end"


def test_text_that_is_no_unicode_does_not_end_the_host() -> None:
    """A lone surrogate (bytes decoded with surrogateescape) makes a block malformed."""
    found = extract(block('{"text":"\udc80"}'))
    assert (found.entries, len(found.malformed)) == ([], 1)


@given(st.text(), st.lists(st.dictionaries(st.text(), st.integers())), st.text())
def test_whatever_is_around_blocks_comes_back(before: str, entries: list[dict], after: str) -> None:
    """Nothing is lost: the output without the blocks, and every block's entry."""
    if BEGIN in before + after or END in before + after or before.endswith("=") or after.startswith("\n"):
        return
    printed = before + "".join(block(json.dumps(entry)) for entry in entries) + after
    found = extract(printed)
    assert found.output == before + after
    assert found.entries == entries
