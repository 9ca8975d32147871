"""Blocks that sandboxed code prints, taken out of its output."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamjournal.agents.markers import (
    BEGIN,
    END,
    UNTERMINATED,
    Malformed,
    MarkerParser,
    Parsed,
    extract,
    markers,
)


def block(text: str, newline: str = "\n") -> str:
    """A block as a program prints it."""
    return f"{BEGIN}{newline}{text}{newline}{END}{newline}"


def parse(data: bytes, cuts: list[int] | None = None, **options) -> Parsed:
    """All of an output, in chunks that end at the cuts."""
    parser = MarkerParser(**options)
    places = sorted({0, len(data), *(cut for cut in cuts or () if cut < len(data))})
    chunks = [data[a:b] for a, b in pairwise(places)]
    parts = [*map(parser.feed, chunks), parser.finish()]
    assert not parser.holds
    return Parsed(
        b"".join(part.output for part in parts),
        [entry for part in parts for entry in part.entries],
        [told for part in parts for told in part.malformed],
    )


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
    ("output", "rest"),
    [
        (f'x {BEGIN}{{"n":1}}{END} y\n', "x  y\n"),
        (f'x {BEGIN} {{"n":1}} {END}\ny', "x \ny"),  # the line is the program's, and so is its end
        (f'{BEGIN}{{"n":1}}{END}\ny', "y"),  # the line is the block's
        (f'50 %{BEGIN}\n{{"n":1}}\n{END}\n, 60 %', "50 %, 60 %"),  # the program's line goes on
        (f'{BEGIN}{{"n":1}}{END}', ""),
        (f'{BEGIN}{{"n":1}}{END}\r', "\r"),
    ],
)
def test_a_block_amid_other_text_leaves_what_the_program_printed_besides(output: str, rest: str) -> None:
    """A newline after a block goes with it where the block had lines of its own."""
    assert extract(output) == (rest, [{"n": 1}], [])


def test_colours_around_and_within_a_block_do_no_harm() -> None:
    """Loggers and terminals put ANSI codes around whole lines; those outside stay, those inside go."""
    output = f'\x1b[32m{BEGIN}\x1b[0m\n\x1b[1;33m{{"n":1}}\x1b[0m\n\x1b[32m{END}\x1b[0m\nplain\n'
    assert extract(output) == ("\x1b[32m\x1b[0m\nplain\n", [{"n": 1}], [])


def test_what_pythons_json_prints_counts() -> None:
    """NaN, Infinity and half a surrogate pair are no JSON, but `json.dumps` prints them."""
    (entry,) = extract(block(json.dumps({"loss": float("inf"), "name": "\udc80"}))).entries
    assert entry == {"loss": float("inf"), "name": "\udc80"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{oops", "no JSON"),
        ("", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[1]", "no object"),
        ("7", "no object"),
    ],
)
def test_a_block_that_is_no_entry_stays_in_the_output_and_is_told_of(text: str, reason: str) -> None:
    """So that nobody loses what the program meant to say; blocks beside it count."""
    bad = block(text)
    found = extract(block('{"n":1}') + bad + block('{"n":2}'))
    assert found.output == bad
    assert found.entries == [{"n": 1}, {"n": 2}]
    (told,) = found.malformed
    assert reason in told.reason
    assert told.start == text[:80]


def test_a_block_without_its_end_stays_and_is_told_of() -> None:
    """The program died, or its output was cut; what came whole before it counts."""
    found = extract(block('{"n":1}') + BEGIN + '\n{"n":2')
    assert found.output == BEGIN + '\n{"n":2'
    assert found.entries == [{"n": 1}]
    assert found.malformed == [Malformed(UNTERMINATED, '{"n":2')]


def test_a_cut_block_does_not_swallow_the_next_one() -> None:
    """A program that died in a block was started again: the second's block is whole."""
    found = extract(f'{BEGIN}\n{{"n":1\n' + block('{"n":2}'))
    assert found.entries == [{"n": 2}]
    assert found.malformed == [Malformed(UNTERMINATED, '{"n":1')]
    assert found.output == f'{BEGIN}\n{{"n":1\n'


def test_each_problem_is_told_of() -> None:
    """A malformed block does not hide that another one has no end."""
    found = extract(block("oops") + BEGIN)
    assert [told.start for told in found.malformed] == ["oops", ""]
    assert found.malformed[1].reason == UNTERMINATED


def test_text_that_is_no_unicode_does_not_end_the_host() -> None:
    """A lone surrogate (bytes decoded with surrogateescape) makes a block malformed, and stays as it is."""
    text = block('{"text":"\udc80"}')
    found = extract(text)
    assert (found.output, found.entries, len(found.malformed)) == (text, [], 1)


def test_an_entry_beyond_the_bound_stays_in_the_output_as_soon_as_that_is_known() -> None:
    """A begin that no end follows holds back no more than a block may have."""
    parser = MarkerParser(max_entry_bytes=1000)
    assert parser.feed(BEGIN.encode()).output == b""
    outputs = [parser.feed(b"x" * 100).output for _ in range(12)]
    assert b"".join(outputs) == BEGIN.encode() + b"x" * 1200
    assert parser.feed(b"live").output == b"live"
    for size, taken in ((1000, 1), (1001, 0)):
        text = b'"%b"' % (b"x" * (size - 8))
        found = parse(b'%b{"a":%b}%b' % (BEGIN.encode(), text, END.encode()), max_entry_bytes=1000)
        assert len(found.entries) == taken
        assert [told.reason for told in found.malformed] == ["longer than 1000 bytes"] * (1 - taken)


def test_blocks_beyond_the_count_stay_in_the_output() -> None:
    """A loop that prints entries for ever does not fill the journal; its output is still whole."""
    parser = MarkerParser(max_entries=2)
    blocks = [block(f'{{"n":{n}}}').encode() for n in range(5)]
    found = parser.feed(b"".join(blocks))
    assert [entry["n"] for entry in found.entries] == [0, 1]
    assert found.output == b"".join(blocks[2:])
    assert (parser.beyond, found.malformed) == (3, [])


def test_output_that_cannot_be_a_marker_is_given_at_once() -> None:
    """A progress line without a newline shows while it is printed; only a marker's possible begin waits."""
    parser = MarkerParser()
    for chunk in (b"10 %\r", b"20 %\r", b"[====>   ]", b"\xc3", b"\xa9", b"=JOURNAL", b"===JOURNAL!"):
        assert parser.feed(chunk).output == chunk
    assert parser.feed(b"[=====").output == b"[=="
    assert parser.feed(b"=").output == b"="
    assert parser.feed(b"]").output == b"===]"
    assert parser.feed(b"a===JOURNAL_ENTRY==").output == b"a"
    assert parser.holds
    assert parser.finish().output == b"===JOURNAL_ENTRY=="


def test_an_entry_is_given_with_its_end_marker() -> None:
    """It does not wait for what comes after it, not even for the newline."""
    parser = MarkerParser()
    text = block('{"n":1}').encode()
    assert parser.feed(text[:-2]).entries == []
    assert parser.feed(text[-2:-1]).entries == [{"n": 1}]
    assert parser.feed(b"\nnext").output == b"next"


def test_with_a_nonce_plain_markers_are_ordinary_output() -> None:
    """Data that holds markers is not taken for entries of the code that reads it."""
    begin, end = markers("k3v9")
    plain = block('{"n":1}') + block("oops") + BEGIN
    found = extract(plain[: -len(BEGIN)] + f'{begin}\n{{"n":2}}\n{end}\n' + BEGIN, nonce="k3v9")
    assert found == (plain, [{"n": 2}], [])
    assert extract(f"{begin}{{}}{end}").entries == []


@pytest.mark.parametrize("nonce", ["", "a b", "===", "x" * 65, "é", "a\n"])
def test_a_nonce_that_could_not_be_told_from_a_marker_is_refused(nonce: str) -> None:
    """It goes into a pattern and into source code."""
    with pytest.raises(ValueError, match="nonce"):
        MarkerParser(nonce)


TEXT = '{"n":1}'
HALVES = [BEGIN, END, *markers("n"), "===", "=", BEGIN[:9], BEGIN[9:], END[5:], "\u00e9"]
BYTES = [b"\n", b"\r\n", b"\r", b'{"n":1}', b'{"n":\n2}', b"[]", b"{", b"\x1b[1m", b"x" * 30]
WHOLE = [block(TEXT, newline).encode() for newline in ("\n", "\r\n", "")]
PIECES = st.lists(
    st.one_of(
        st.binary(max_size=6),
        st.sampled_from([*(half.encode() for half in HALVES), *BYTES]),
        st.sampled_from(WHOLE),
    ),
    max_size=14,
)


@given(PIECES, st.lists(st.integers(0, 400)), st.sampled_from([None, "n"]), st.sampled_from([12, 40, 10_000]))
def test_any_cut_into_chunks_gives_the_same(
    pieces: list[bytes], cuts: list[int], nonce: str | None, limit: int
) -> None:
    """Output, entries and reports are those of the whole output in one chunk, and of single bytes."""
    data = b"".join(pieces)
    options = {"nonce": nonce, "max_entry_bytes": limit, "max_entries": 2}
    whole = parse(data, **options)
    assert parse(data, cuts, **options) == whole
    assert parse(data, list(range(len(data))), **options) == whole
    if not whole.entries:
        assert whole.output == data


@given(st.text(), st.lists(st.dictionaries(st.text(), st.integers())), st.text())
def test_whatever_is_around_blocks_comes_back(before: str, entries: list[dict], after: str) -> None:
    """Nothing is lost: the output without the blocks, and every block's entry."""
    if BEGIN in before + after or END in before + after or before.endswith("=") or after.startswith("\n"):
        return
    printed = before + "".join(block(json.dumps(entry)) for entry in entries) + after
    found = extract(printed)
    assert found.output == before + after
    assert found.entries == entries


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_every_single_cut_gives_the_same(newline: str) -> None:
    """Within each marker, within the newline after a block, within a character."""
    data = f"é{newline}{block(TEXT, newline)}é{BEGIN}{{}}{END}{newline}\rz".encode()
    whole = parse(data)
    assert whole.output == f"é{newline}é{newline}\rz".encode()
    for cut in range(len(data)):
        assert parse(data, [cut]) == whole
