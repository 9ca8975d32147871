"""Files: what a dead writer, a full disk, a person with an editor and a second process leave behind."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from streamjournal.core.errors import (
    CommitConflictError,
    CommitRefusedError,
    DeadLetterError,
    JournalGoneError,
    NotConfiguredError,
    StoreUnavailableError,
    UnsafeStoreError,
)
from streamjournal.store import journal_append, journal_folder
from streamjournal.store.files import FilesStore
from streamjournal.store.os_errors import explained
from tests.store.rigs import MIB, FilesRig, begin, read, some_meta

pytestmark = pytest.mark.anyio

FIRST = b'{"n":1}\n'
SECOND = b'{"n":2,"details":"' + b"y" * 200 + b'"}\n'
THIRD = b'{"n":3}\n'


class Died(BaseException):
    """Stands for kill -9: no `except` of the code under test catches it."""


@pytest.fixture
def rig(tmp_path: Path) -> FilesRig:
    """A store in a folder of its own."""
    return FilesRig(tmp_path / "home")


class Killer:
    """Lets a process die at its n-th system call that changes something.

    Args:
        done: it dies after the call; else before it, a write half done.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, left: int = 10**9, *, done: bool = False) -> None:
        self.left = left
        self.calls = 0
        self._done = done
        self._write = os.write
        for name in ("write", "pwrite", "replace", "ftruncate"):
            monkeypatch.setattr(journal_append.os, name, self._deadly(getattr(os, name)))

    def _deadly(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            self.calls += 1
            self.left -= 1
            if self.left < 0:
                if self._done:
                    call(*arguments, **named)
                elif call is self._write:
                    call(arguments[0], arguments[1][: len(arguments[1]) // 2])
                raise Died
            return call(*arguments, **named)

        return wrapped


def _changes_of_an_append(home: Path, monkeypatch: pytest.MonkeyPatch, base: str | None) -> int:
    with monkeypatch.context() as patch:
        killer = Killer(patch)
        journal_append.append(home, base, SECOND, some_meta(2), 1.0)
        return killer.calls


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("adopted", [False, True], ids=["ours", "adopted"])
async def test_a_writer_may_die_at_any_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adopted: bool, done: bool
) -> None:
    """Wherever it dies, readers see the last commit or the next, and the next writer goes on."""

    async def prepare(number: int) -> FilesRig:
        rig = FilesRig(tmp_path / f"home{number}")
        if adopted:
            rig.adopt("s", FIRST.rstrip())
        else:
            await begin(rig.store, "s", FIRST)
        return rig

    rig = await prepare(0)
    calls = _changes_of_an_append(rig.path("s").parent, monkeypatch, (await _head(rig)).version)
    committed = []
    for survived in range(calls):
        rig = await prepare(survived + 1)
        before = await _head(rig)
        with monkeypatch.context() as patch:
            Killer(patch, survived, done=done)
            with pytest.raises(Died):
                journal_append.append(rig.path("s").parent, before.version, SECOND, some_meta(2), 1.0)
        after = await _head(rig)
        assert await read(rig.store, "s") == rig.raw("s")[: after.size]
        committed.append(after.version != before.version)
        if committed[-1]:
            assert (after.size, after.meta) == (len(FIRST + SECOND), some_meta(2))
        else:
            assert (after.size, after.meta) == (before.size, before.meta)

        await rig.store.append("s", after, THIRD, some_meta(3))
        expected = FIRST + SECOND + THIRD if committed[-1] else FIRST + THIRD
        assert await read(rig.store, "s") == rig.raw("s") == expected
        assert (await _head(rig)).meta == some_meta(3)
    assert committed == [False] * (calls - 1) + [done]  # the last call is the commit


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
async def test_a_writer_may_die_at_any_call_of_a_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: bool
) -> None:
    """A journal that was not begun to the end does not exist, and can be begun."""
    calls = _changes_of_an_append(tmp_path / "counted", monkeypatch, None)
    for survived in range(calls - done):
        rig = FilesRig(tmp_path / f"home{survived}")
        with monkeypatch.context() as patch:
            Killer(patch, survived, done=done)
            with pytest.raises(Died):
                journal_append.append(rig.path("s").parent, None, SECOND, some_meta(2), 1.0)
        assert await rig.store.head("s") is None
        assert await read(rig.store, "s") is None
        assert [it async for it in rig.store.journals()] == []
        await begin(rig.store, "s", FIRST)
        assert rig.raw("s") == FIRST


@pytest.mark.parametrize("deleted", [False, True], ids=["never there", "deleted"])
@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
async def test_a_writer_that_dies_while_it_begins_is_no_deletion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: bool, deleted: bool
) -> None:
    """Nor does it hide one, wherever it dies, and however often."""
    calls = _changes_of_an_append(tmp_path / "counted", monkeypatch, None)
    for survived in range(calls - done):
        rig = FilesRig(tmp_path / f"home{survived}")
        if deleted:
            await begin(rig.store, "s", FIRST)
            rig.delete_traceably("s")
        for _ in range(3):
            with monkeypatch.context() as patch:
                Killer(patch, survived, done=done)
                with pytest.raises(Died):
                    journal_append.append(rig.path("s").parent, None, SECOND, some_meta(2), 1.0)
            assert await rig.store.was_deleted("s") is deleted
        await begin(rig.store, "s", THIRD)
        assert not await rig.store.was_deleted("s")
        assert await read(rig.store, "s") == THIRD


async def test_a_folder_that_was_deleted_leaves_no_trace(rig: FilesRig) -> None:
    """It is as if there had never been a journal."""
    await begin(rig.store, "s", FIRST)
    rig.delete("s")
    assert not await rig.store.was_deleted("s")


async def test_lines_added_by_hand_stay_and_are_counted(rig: FilesRig) -> None:
    """A line that a person appended shows with the next commit, newline and all, and counts."""
    base = await begin(rig.store, "s", FIRST)
    by_hand = b'{"event_type":"NOTE","level":"ERROR"}\n\nno json'
    with rig.path("s").open("ab") as file:
        file.write(by_hand)
    assert await read(rig.store, "s") == FIRST

    head = await rig.store.append("s", base, THIRD, some_meta(2))
    assert rig.raw("s") == FIRST + by_hand + b"\n" + THIRD
    assert head.size == len(rig.raw("s"))
    assert head.meta is not None
    assert (head.meta.summary.entries, head.meta.summary.errors) == (4, 1)
    assert await rig.store.head("s") == head
    last = await rig.store.append("s", head, THIRD, some_meta(3, entries=5))
    assert last.meta is not None
    assert last.meta.summary.entries == 5


async def test_a_line_by_hand_that_is_nested_beyond_decoding_is_counted(rig: FilesRig) -> None:
    """Whatever a person appended, the next commit goes on."""
    base = await begin(rig.store, "s", FIRST)
    deep = b'{"event_type":"NOTE","details":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n"
    with rig.path("s").open("ab") as file:
        file.write(deep)
    head = await rig.store.append("s", base, THIRD, some_meta(2))
    assert rig.raw("s") == FIRST + deep + THIRD
    assert head.meta is not None
    assert head.meta.summary.entries == 3


async def test_a_file_among_the_dead_letters_that_is_none(rig: FilesRig) -> None:
    """It is told apart from one that is missing, and only our names are listed."""
    folder = rig.home / "dead-letters" / "0123456789abcdef" / "unsent"
    folder.mkdir(parents=True)
    for name in ("k3v9q2m8x1-17.json", "notes.json", ".new-abc", "k3v9q2m8x1-1.json~"):
        (folder / name).write_bytes(b"\xff{")
    (listed,) = [it async for it in rig.store.list_dead_letters()]
    assert listed.key == "dead-letters/0123456789abcdef/unsent/k3v9q2m8x1-17.json"
    with pytest.raises(DeadLetterError, match=r"k3v9q2m8x1-17\.json is no dead letter"):
        await rig.store.get_dead_letter(listed.key)


async def test_a_hand_is_told_from_a_dead_writer(rig: FilesRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer died before its first byte, then a person added a line: that line stays."""
    base = await begin(rig.store, "s", FIRST)
    with monkeypatch.context() as patch:
        patch.setattr(journal_append, "_write_at_end", _die)
        with pytest.raises(Died):
            journal_append.append(rig.path("s").parent, base.version, SECOND, some_meta(2), 1.0)
    with rig.path("s").open("ab") as file:
        file.write(b'{"by":"hand"}\n')
    await rig.store.append("s", base, THIRD, some_meta(2))
    assert rig.raw("s") == FIRST + b'{"by":"hand"}\n' + THIRD


async def test_a_hand_that_writes_after_a_commit_is_safe(rig: FilesRig) -> None:
    """The intent of a commit that worked is void, though nobody cleared it."""
    base = await begin(rig.store, "s", FIRST)
    head = await rig.store.append("s", base, SECOND, some_meta(2))
    with rig.path("s").open("ab") as file:
        file.write(SECOND[:50])
    await rig.store.append("s", head, THIRD, some_meta(3))
    assert rig.raw("s") == FIRST + SECOND + SECOND[:50] + b"\n" + THIRD


async def test_another_tool_may_append_in_between(rig: FilesRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool that knows of no lock writes between our look and our write: both lines stay and count."""
    base = await begin(rig.store, "s", FIRST)
    write = journal_append._write_at_end

    def late(body: int, data: bytes) -> int:
        with rig.path("s").open("ab") as file:
            file.write(b'{"level":"ERROR"}\n')
        return write(body, data)

    monkeypatch.setattr(journal_append, "_write_at_end", late)
    head = await rig.store.append("s", base, SECOND, some_meta(2))
    assert await read(rig.store, "s") == FIRST + b'{"level":"ERROR"}\n' + SECOND
    assert head.meta is not None
    assert (head.meta.summary.entries, head.meta.summary.errors) == (3, 1)


async def test_a_journal_that_was_cut_goes_on_after_what_is_left(
    rig: FilesRig, capsys: pytest.CaptureFixture[str]
) -> None:
    """If committed bytes are missing, readers get what is left, and the next lines come after it, loudly."""
    base = await begin(rig.store, "s", FIRST + SECOND)
    rig.path("s").write_bytes(FIRST[:-1])
    assert await read(rig.store, "s") == FIRST[:-1]
    await rig.store.append("s", base, THIRD, some_meta(2))
    assert rig.raw("s") == FIRST + THIRD
    assert "journal_was_cut" in capsys.readouterr().out


async def test_a_journal_that_is_cut_under_a_reader(rig: FilesRig) -> None:
    """A reader that is promised bytes and finds none says so, and does not end as if all was well."""
    await begin(rig.store, "s", FIRST * 300_000)
    async with rig.store.open("s") as body:
        assert body is not None
        await anext(body.chunks)
        os.truncate(rig.path("s"), 100)
        with pytest.raises(StoreUnavailableError, match="cut while it was read"):
            await anext(body.chunks)


@pytest.mark.parametrize("text", ["", "{", '{"version":1}', "\xff"])
async def test_a_broken_meta_file_is_refused(rig: FilesRig, text: str) -> None:
    """Metadata that cannot be read is an error that says what to do; nothing is guessed."""
    base = await begin(rig.store, "s")
    (rig.path("s").parent / journal_folder.META).write_text(text, encoding="latin-1")
    with pytest.raises(CommitRefusedError, match="delete it"):
        await rig.store.head("s")
    with pytest.raises(CommitRefusedError, match="delete it"):
        await rig.store.append("s", base, THIRD, some_meta(2))


async def test_metadata_of_a_newer_version_is_refused(rig: FilesRig) -> None:
    """An older program neither reads nor extends what a newer one wrote."""
    await begin(rig.store, "s")
    meta = rig.path("s").parent / journal_folder.META
    meta.write_text(meta.read_text().replace('"sj-version":"1"', '"sj-version":"9"'))
    with pytest.raises(CommitRefusedError, match="upgrade streamjournal"):
        await rig.store.head("s")


@pytest.mark.parametrize("room", [0, 100])
async def test_a_full_disk(rig: FilesRig, room: int) -> None:
    """No room, or not enough: nothing shows, the file is as it was, and it goes on when there is room."""
    base = await begin(rig.store, "s", FIRST * 200)  # longer than anything else that is written
    with _file_size_limit(base.size + room), pytest.raises(StoreUnavailableError, match="disk full"):
        await rig.store.append("s", base, SECOND, some_meta(2))
    assert rig.raw("s") == FIRST * 200
    assert await _head(rig) == base
    await rig.store.append("s", base, SECOND, some_meta(2))
    assert rig.raw("s") == FIRST * 200 + SECOND


async def test_no_room_for_the_metadata(rig: FilesRig) -> None:
    """The lines fit and the metadata does not: the lines go again."""
    base = await begin(rig.store, "s", FIRST)
    full = rig.path("s").parent / journal_append._NEW_META
    full.symlink_to("/dev/full")
    with pytest.raises(StoreUnavailableError, match="disk full"):
        await rig.store.append("s", base, SECOND, some_meta(2))
    assert rig.raw("s") == FIRST
    full.unlink()
    await rig.store.append("s", base, THIRD, some_meta(2))
    assert rig.raw("s") == FIRST + THIRD


async def test_no_room_for_a_beginning(rig: FilesRig) -> None:
    """A journal that could not be begun does not exist."""
    with _file_size_limit(50), pytest.raises(StoreUnavailableError, match="disk full"):
        await begin(rig.store, "s", SECOND)
    assert await rig.store.head("s") is None
    await begin(rig.store, "s", FIRST)


async def test_no_room_for_a_blob(rig: FilesRig) -> None:
    """A blob is there as a whole or not at all."""
    with _file_size_limit(50), pytest.raises(StoreUnavailableError, match="disk full"):
        await rig.store.put_blob("s", "writer0001-1", b"x" * 100)
    assert [it for it in (rig.home / "blobs").rglob("*") if it.is_file()] == []


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.EPERM])
def test_not_allowed_to_write(code: int) -> None:
    """A folder that this user may not write is a matter of settings; the text names the setting."""
    with pytest.raises(NotConfiguredError, match=r"/data: .*STREAMJOURNAL_HOME"), explained(Path("/data")):
        raise OSError(code, os.strerror(code))


def test_other_trouble_may_pass() -> None:
    """What is neither room nor permission is worth another try."""
    with pytest.raises(StoreUnavailableError, match="Input/output"), explained(Path("/data")):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


async def test_a_home_that_is_no_folder(tmp_path: Path) -> None:
    """A file where the home should be is one clear error, for writers and readers."""
    (tmp_path / "home").write_text("a file")
    store = FilesStore(tmp_path / "home")
    with pytest.raises(NotConfiguredError, match="STREAMJOURNAL_HOME"):
        await begin(store, "s")
    with pytest.raises(NotConfiguredError, match="STREAMJOURNAL_HOME"):
        await store.head("s")


async def test_a_lock_that_is_held_too_long(rig: FilesRig) -> None:
    """Who waits for the lock gives up after the timeout, and says whom to look for."""
    base = await begin(rig.store, "s", FIRST)
    impatient = FilesStore(rig.home, lock_timeout=0.002)
    with journal_folder.opened(rig.path("s").parent) as folder:
        assert folder is not None
        with journal_append.lock(folder) as held:
            assert held is not None
            with pytest.raises(StoreUnavailableError, match="fuser"):
                await impatient.append("s", base, SECOND, some_meta(2))
            assert await read(impatient, "s") == FIRST  # readers need no lock
    await impatient.append("s", base, SECOND, some_meta(2))


async def test_a_fork_does_not_keep_the_lock(rig: FilesRig) -> None:
    """A child that was forked in mid-append shares the descriptor; the lock is free all the same."""
    base = await begin(rig.store, "s", FIRST)
    with journal_folder.opened(rig.path("s").parent) as folder:
        assert folder is not None
        with journal_append.lock(folder) as held:
            assert held is not None
            inherited = os.dup(held)  # what a fork does to it
    try:
        await rig.store.append("s", base, SECOND, some_meta(2))
    finally:
        os.close(inherited)


async def test_a_deleted_lock_file_excludes_nobody(rig: FilesRig) -> None:
    """A lock on a file that is not there any more is not taken for the lock."""
    await begin(rig.store, "s", FIRST)
    folder = rig.path("s").parent
    with journal_folder.opened(folder) as fd:
        assert fd is not None
        with journal_append.lock(fd) as first:
            assert first is not None
            (folder / journal_folder.LOCK).unlink()
            with journal_append.lock(fd) as second:
                assert second is not None  # the new file's; whoever holds the old one is out of luck
    assert (folder / journal_folder.LOCK).exists()


async def test_a_folder_deleted_and_begun_again_in_mid_append(
    rig: FilesRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of an append to the old folder gets into the new one."""
    base = await begin(rig.store, "s", FIRST)
    folder = rig.path("s").parent
    write = journal_append._write_new_meta

    def restarted(fd: int, committed: journal_folder.Committed) -> None:
        monkeypatch.setattr(journal_append, "_write_new_meta", write)
        shutil.rmtree(folder)
        journal_append.append(folder, None, THIRD, some_meta(1, generation="g2"), 1.0)
        write(fd, committed)

    monkeypatch.setattr(journal_append, "_write_new_meta", restarted)
    with pytest.raises(JournalGoneError):
        await rig.store.append("s", base, SECOND, some_meta(2))
    assert rig.raw("s") == THIRD
    assert (await _head(rig)).meta == some_meta(1, generation="g2")


async def test_a_journal_begun_again_under_a_reader(rig: FilesRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader gets the metadata and the bytes of the same journal, never of two."""
    await begin(rig.store, "s", FIRST)
    look = journal_folder.read_committed

    def late(fd: int) -> journal_folder.Committed | None:
        monkeypatch.setattr(journal_folder, "read_committed", look)
        found = look(fd)
        rig.path("s").unlink()
        journal_append.append(rig.path("s").parent, None, SECOND, some_meta(1, generation="g2"), 1.0)
        return found

    monkeypatch.setattr(journal_folder, "read_committed", late)
    async with rig.store.open("s") as body:
        assert body is not None
        assert body.head.meta == some_meta(1, generation="g2")
        assert b"".join([piece async for piece in body.chunks]) == SECOND


async def test_only_the_body_was_deleted(rig: FilesRig) -> None:
    """Without its lines a journal is gone, whatever lies beside them."""
    base = await begin(rig.store, "s", FIRST)
    rig.path("s").unlink()
    assert await rig.store.head("s") is None
    with pytest.raises(JournalGoneError):
        await rig.store.append("s", base, SECOND, some_meta(2))
    await begin(rig.store, "s", THIRD)
    assert await read(rig.store, "s") == THIRD


async def test_an_older_tool_goes_on_after_adoption(rig: FilesRig) -> None:
    """Lines that it adds later are taken in by the next commit, like those of a person."""
    rig.adopt("s", FIRST)
    head = await rig.store.append("s", await _head(rig), SECOND, some_meta(2))
    with rig.path("s").open("ab") as file:
        file.write(THIRD)
    head = await rig.store.append("s", head, FIRST, some_meta(3))
    assert await read(rig.store, "s") == FIRST + SECOND + THIRD + FIRST
    assert head.meta is not None
    assert head.meta.summary.entries == 4


async def test_reading_takes_little_memory(rig: FilesRig) -> None:
    """A journal is streamed: the memory that it takes to read it does not grow with it."""
    rig.adopt("s", b"")
    os.truncate(rig.path("s"), 48 * MIB)
    size = 0
    tracemalloc.start()
    try:
        async with rig.store.open("s") as body:
            assert body is not None
            async for piece in body.chunks:
                size += len(piece)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size == 48 * MIB
    assert peak < 4 * MIB


@pytest.mark.parametrize("prefix", ["", "j-", "deep/er/", "deep/j-"])
async def test_any_prefix_lists_its_journals(tmp_path: Path, prefix: str) -> None:
    """A prefix need not end with a slash, as on S3, and may be empty."""
    store = FilesStore(tmp_path / "home", prefix=prefix)
    for session_id in ("a", ".b"):
        await begin(store, session_id)
    await store.put_blob("a", "writer0001-1", b"{}")
    (tmp_path / "home" / "other").mkdir()
    assert [it.session_id async for it in store.journals()] == [".b", "a"]


async def test_what_else_lies_among_the_journals(rig: FilesRig) -> None:
    """Files, folders without a journal, and names that are no UTF-8 are passed over."""
    await begin(rig.store, "s")
    journals = rig.home / "journals"
    (journals / "README").write_text("a file")
    (journals / "empty").mkdir()
    strange = journals / os.fsdecode(b"\xff")
    strange.mkdir()
    (strange / "journal.jsonl").write_bytes(FIRST)
    assert [it.name async for it in rig.store.journals()] == ["s"]


async def test_many_journals_are_listed_in_order(rig: FilesRig) -> None:
    """More journals than are looked at in one go."""
    for n in range(600):
        rig.adopt(f"s{n}", b"")
    names = [it.name async for it in rig.store.journals()]
    assert len(names) == 600
    assert names == sorted(names, key=lambda name: name + "/")


async def test_the_probe_finds_a_lock_that_excludes_nobody(
    rig: FilesRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system whose locks do nothing is refused."""
    monkeypatch.setattr(journal_append.fcntl, "flock", lambda fd, how: None)
    with pytest.raises(UnsafeStoreError, match="does not keep locks"):
        await rig.store.probe()
    assert list((rig.home / "scratch").iterdir()) == []


async def test_the_probe_finds_an_append_that_is_not_refused(
    rig: FilesRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that takes an append to an old version is refused."""
    append = journal_append.append

    def careless(folder: Path, base: str | None, *rest: Any) -> Any:
        try:
            return append(folder, base, *rest)
        except CommitConflictError:
            state = journal_folder.look(folder)
            assert state is not None
            return append(folder, state.version, *rest)

    monkeypatch.setattr(journal_append, "append", careless)
    with pytest.raises(UnsafeStoreError, match="old version"):
        await rig.store.probe()


async def _head(rig: FilesRig) -> Any:
    head = await rig.store.head("s")
    assert head is not None
    return head


def _die(*arguments: Any) -> Any:
    raise Died


@contextmanager
def _file_size_limit(size: int) -> Iterator[None]:
    """Files cannot grow beyond `size` bytes: writes fall short and then fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
