"""Journals that somebody edited: what a worker adds destroys nothing, and its metadata is true."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pytest

from streamjournal.core.entry import decode_envelope
from streamjournal.core.item import Item
from streamjournal.core.position import Lineage, Position
from streamjournal.store import journal_append, journal_folder
from streamjournal.store.commit import Committer
from streamjournal.store.history import count_body
from tests.sim.rig import WRITER, line
from tests.sim.virtual import virtual_clock
from tests.store.rigs import FilesRig

pytestmark = pytest.mark.anyio


@pytest.fixture
def rig(tmp_path: Path) -> FilesRig:
    """A store in a folder of its own."""
    return FilesRig(tmp_path / "home")


async def _no_lineage(_: Collection[str]) -> Lineage:
    return Lineage({})


async def _ours() -> None:
    """The lease is held."""


def _item(n: int) -> Item:
    text = line("s", n)
    position = Position("0123456789abcdef", "a", str(n))
    return Item(text, position, WRITER, n, decode_envelope(text).timestamp, "INFO", None)


@pytest.mark.parametrize(
    "by_hand",
    [
        b'{"event_type":"NOTE","timestamp":"t9"}\n',
        b'{"event_type":"SESSION_END","details":{"error":"no"}}\nno json',
        b"\n",
        b"x",
    ],
)
async def test_the_metadata_agrees_with_lines_added_by_hand(rig: FilesRig, by_hand: bytes) -> None:
    """Summary and checksum are those of the body as it is then, whatever was added."""
    clock = virtual_clock()
    committer = Committer(rig.store, clock, _no_lineage)
    first = (await committer.commit("s", [_item(1), _item(2)], None, _ours)).head
    with rig.path("s").open("ab") as file:
        file.write(by_hand)
    head = (await committer.commit("s", [_item(3)], first, _ours)).head
    assert head is not None
    assert head.meta is not None
    counted = await count_body(rig.store, "s")
    assert (head.meta.summary, head.meta.crc) == (counted.summary, counted.checksum)
    assert rig.raw("s").endswith(by_hand.rstrip(b"\n") + b"\n" + _item(3).line + b"\n")


async def test_lines_that_come_while_a_journal_is_adopted(rig: FilesRig) -> None:
    """An older tool that goes on writing meanwhile: its lines stay, and there is no wrong checksum."""
    rig.adopt("s", b'{"event_type":"OLD"}')
    folder = rig.path("s").parent
    with journal_folder.opened(folder) as fd:
        state = journal_folder.look(folder)
        assert fd is not None
        assert state is not None
        journal_append._adopt(fd, state, 0.0)  # and the writer dies
    known = await rig.store.head("s")
    with rig.path("s").open("ab") as file:
        file.write(b'\n{"event_type":"LATER"}')
    done = await Committer(rig.store, virtual_clock(), _no_lineage).commit("s", [_item(1)], known, _ours)
    assert rig.raw("s").count(b"\n") == 3
    assert done.head is not None
    assert done.head.meta is not None
    assert (done.head.meta.summary.entries, done.head.meta.crc) == (3, None)
