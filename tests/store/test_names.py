"""Names of journals, blobs and dead letters, for whatever a session may be called."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streamjournal.core.entry import MAX_SESSION_ID_BYTES, check_session_id
from streamjournal.store.names import (
    MAX_NAME_BYTES,
    blob_key,
    dead_letter_key,
    dead_letter_order,
    is_blob_key,
    is_dead_letter_key,
    journal_key,
    name_in_key,
    session_name,
    session_of,
)

ODD_IDS = [
    "swe-agent-claude35/astropy__astropy-12907",
    "../x",
    "a/b",
    "a%2Fb",
    "a%2fb",
    "日本",
    "CON",
    "con",
    "%43ON",
    "nul.txt",
    "COM1",
    ".",
    "..",
    "...",
    "%2E",
    "~",
    "~" + "0" * 64,
    "a~" + "0" * 64,
    "C:\\x",
    "-rf",
    "\N{GRINNING FACE}" * 64,
    "x" * 201,
    "x" * 256,
    "%" * 256,
]
session_ids = st.one_of(
    st.sampled_from(ODD_IDS),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=256),
    st.text("a./%~\\2Ff日C", min_size=1, max_size=256),
).filter(lambda it: len(it.encode()) <= MAX_SESSION_ID_BYTES)


@given(session_ids)
def test_a_session_comes_back_from_its_name(session_id: str) -> None:
    """The name gives the id back exactly, or says that only the journal's lines can tell."""
    check_session_id(session_id)
    assert session_of(session_name(session_id)) in (session_id, None)


@given(session_ids)
def test_only_long_names_lose_the_id(session_id: str) -> None:
    """An id whose name fits never has to be looked up in the journal."""
    name = session_name(session_id)
    if len(name) < MAX_NAME_BYTES and not re.search(r"~[0-9a-f]{64}$", name):
        assert session_of(name) == session_id


@given(session_ids, session_ids)
@example("a/b", "a%2Fb")
@example("CON", "%43ON")
@example("x" * 256, "x" * 255)
@example(".", "%2E")
def test_every_session_has_a_name_of_its_own(a: str, b: str) -> None:
    """Two sessions never share a journal."""
    assert (session_name(a) == session_name(b)) == (a == b)


@given(session_ids)
def test_a_name_is_one_harmless_path_component(session_id: str) -> None:
    """It is ASCII, at most 200 bytes, no folder's alias, no device of Windows, and needs no quoting."""
    name = session_name(session_id)
    assert re.fullmatch(r"[A-Za-z0-9._%~-]{1,200}", name)
    assert name.strip(".")
    assert not re.match(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\.|$)", name)


def test_the_odd_ones_all_differ() -> None:
    """The ids that have broken other tools get one name each."""
    assert len({session_name(it) for it in ODD_IDS}) == len(ODD_IDS)


@given(session_ids, st.sampled_from(["journals/", "", "p/q/", "j-"]))
def test_a_key_gives_its_name_back(session_id: str, prefix: str) -> None:
    """A listing finds exactly the name in a journal's key."""
    assert name_in_key(prefix, journal_key(prefix, session_id)) == session_name(session_id)


@pytest.mark.parametrize(
    "key",
    [
        "journals/",
        "journals/journal.jsonl",
        "journals//journal.jsonl",
        "journals/a/b/journal.jsonl",
        "journals/a/journal.jsonl.gz",
        "blobs/a/journal.jsonl",
    ],
)
def test_other_keys_are_no_journals(key: str) -> None:
    """Whatever else lies under the prefix is not taken for a journal."""
    assert name_in_key("journals/", key) is None


def test_an_older_tools_folder_stands_for_itself() -> None:
    """Names that we would not make are session ids as they are, if they are no UTF-8 when unquoted."""
    assert session_of("user@example") == "user@example"
    assert session_of("100%ff") == "100%ff"


@given(session_ids)
def test_blob_keys_are_recognised(session_id: str) -> None:
    """What `blob_key` makes may be read as a blob."""
    assert is_blob_key(blob_key(session_id, "writer0001-17"))
    assert is_blob_key(blob_key(session_id, "shardId-000000000000:123:0"))


@pytest.mark.parametrize(
    "key",
    [
        "blobs/../x.json",
        "blobs/./x.json",
        "blobs/x.json",
        "blobs/a/b/c.json",
        "journals/a/b.json",
        "blobs/a/\n.json",
    ],
)
def test_other_keys_are_no_blobs(key: str) -> None:
    """A key in an entry cannot lead out of the blobs."""
    assert not is_blob_key(key)


@given(st.text(min_size=1, max_size=20).filter(lambda it: it.isprintable()))
def test_dead_letter_keys_have_four_parts(shard: str) -> None:
    """A shard's name cannot add a folder."""
    assert dead_letter_key("0123456789abcdef", shard, "17", 0).count("/") == 3


@given(
    st.text("shardId-0123456789ab/.~%", min_size=1, max_size=40),
    st.integers(0, 10**60),
    st.integers(0, 10**9),
)
def test_dead_letter_keys_are_recognised(shard: str, sequence: int, index: int) -> None:
    """What `dead_letter_key` makes may be read as one, unless the shard's name is a way out."""
    key = dead_letter_key("0123456789abcdef", shard, str(sequence), index)
    assert is_dead_letter_key(key) == (shard not in (".", ".."))


def test_dead_letters_sort_as_the_stream_had_them() -> None:
    """Sequence numbers are text of any length: 9 comes before 10."""
    ours = [
        ("a", "9", 0),
        ("a", "10", 2),
        ("a", "10", 10),
        ("a", "100", 0),
        ("b", "1", 0),
        ("unsent", "k3v9q2m8x1", 2),
    ]
    keys = [dead_letter_key("0123456789abcdef", *one) for one in ours]
    assert sorted(set(keys), key=dead_letter_order) == keys
