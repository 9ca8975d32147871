"""S3: the commit protocol's requests, and what it makes of every kind of answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import msgspec
import pytest
from botocore.exceptions import ClientError, NoCredentialsError

from streamjournal.core.clock import SYSTEM
from streamjournal.core.errors import (
    CommitConflictError,
    CommitError,
    CommitRefusedError,
    CommitUnknownError,
    JournalGoneError,
    NotConfiguredError,
    StoreUnavailableError,
    ThrottledError,
    UnavailableError,
    UnsafeStoreError,
)
from streamjournal.store.port import DeadLetter, Head
from streamjournal.store.s3 import S3Store
from streamjournal.store.s3_append import copied_ranges
from tests.store.faulty_client import Fault, FaultyClient, answer, no_answer, reset
from tests.store.rigs import MIB, S3Rig, begin, read, some_meta

pytestmark = [pytest.mark.anyio, pytest.mark.aws]

LINE = b'{"n":1}\n'
BIG = b"x" * (5 * MIB - 1) + b"\n"
KEY = "journals/s/journal.jsonl"


@pytest.fixture
def faulty() -> FaultyClient:
    """The client that fails as told."""
    return FaultyClient()


@pytest.fixture
async def rig(
    faulty: FaultyClient,
    aws_emulator: str,
    aws_bucket: Callable[[], str],
    aws_client: Callable[[str, str], Any],
    anyio_backend: str,
) -> AsyncIterator[S3Rig]:
    """A store over the failing client, in a bucket of its own."""
    rig = S3Rig(aws_client("s3", aws_emulator), aws_bucket(), client=faulty)
    yield rig
    await rig.store.aclose()


def name_of(it: object) -> str | None:
    """An id for a test: the error's code, or its class."""
    if isinstance(it, ClientError):
        return str(it.response["Error"]["Code"])
    if isinstance(it, Exception):
        return type(it).__name__
    return it.__name__ if isinstance(it, type) else None


def uploads(rig: S3Rig) -> list[str]:
    """Multipart uploads that were begun and neither completed nor aborted."""
    found = rig.client.list_multipart_uploads(Bucket=rig.bucket)
    return [it["Key"] for it in found.get("Uploads", [])]


# The requests of each way to commit


async def test_a_small_commit_is_one_put(rig: S3Rig, faulty: FaultyClient) -> None:
    """With the body in the cache a commit is one request; the object says what it is."""
    head = await begin(rig.store, "s", LINE)
    await rig.store.append("s", head, LINE, some_meta(2))
    assert faulty.calls == ["put_object", "put_object"]
    found = rig.client.head_object(Bucket=rig.bucket, Key=KEY)
    assert found["ContentType"] == "application/x-jsonlines"
    assert found["Metadata"] == some_meta(2).encode()


async def test_a_cold_commit_fetches_the_body_once(rig: S3Rig, faulty: FaultyClient) -> None:
    """A worker that does not have the body gets it, and has it for the next commit."""
    await begin(rig.store, "s", LINE)
    cold = S3Store(rig.bucket, clock=SYSTEM, client=faulty)
    head = await cold.head("s")
    faulty.calls.clear()
    for n in (2, 3):
        head = await cold.append("s", head, LINE, some_meta(n))
    assert faulty.calls == ["get_object", "put_object", "put_object"]
    assert rig.raw("s") == LINE * 3


async def test_a_cache_without_room_still_commits(rig: S3Rig, faulty: FaultyClient) -> None:
    """Bodies that the cache cannot hold are fetched each time."""
    tight = S3Store(rig.bucket, clock=SYSTEM, client=faulty, cache_bytes=4)
    head = await begin(tight, "s", LINE)
    for n in (2, 3):
        head = await tight.append("s", head, LINE, some_meta(n))
    assert faulty.calls == ["put_object", "get_object", "put_object", "get_object", "put_object"]
    assert rig.raw("s") == LINE * 3


async def test_a_big_commit_uploads_only_the_new_lines(rig: S3Rig, faulty: FaultyClient) -> None:
    """Above the threshold the old bytes stay inside S3."""
    head = await begin(rig.store, "s", BIG)
    faulty.calls.clear()
    faulty.sent = 0
    head = await rig.store.append("s", head, LINE, some_meta(2))
    assert faulty.calls == [
        "create_multipart_upload",
        "upload_part_copy",
        "upload_part",
        "complete_multipart_upload",
    ]
    assert faulty.sent == len(LINE)
    assert rig.raw("s") == BIG + LINE
    found = rig.client.head_object(Bucket=rig.bucket, Key=KEY)
    assert (found["ContentType"], found["Metadata"]) == ("application/x-jsonlines", some_meta(2).encode())
    assert (found["ETag"], found["ContentLength"]) == (head.version, head.size)


async def test_a_big_journal_whose_last_newline_was_cut(rig: S3Rig, faulty: FaultyClient) -> None:
    """Somebody edited it and kept its metadata: the next line is not glued to what is left."""
    await begin(rig.store, "s", BIG)
    rig.client.put_object(Bucket=rig.bucket, Key=KEY, Body=BIG[:-1], Metadata=some_meta(1).encode())
    await rig.store.append("s", await rig.store.head("s"), LINE, some_meta(2))
    assert rig.raw("s") == BIG + LINE


async def test_a_journal_of_many_copied_parts(rig: S3Rig, faulty: FaultyClient) -> None:
    """A journal over the bound of one copy is copied in several, and nothing is lost between them."""
    body = b"".join(b"%015d\n" % n for n in range(11 * MIB // 16))
    head = await begin(rig.store, "s", body)
    rig.store._appender._max_copied_part = 6 * MIB
    await rig.store.append("s", head, LINE, some_meta(2))
    assert faulty.calls.count("upload_part_copy") == 2
    assert rig.raw("s") == body + LINE


@pytest.mark.parametrize("size", [1, 7, 100, 101, 199, 200, 1000, 12345])
def test_copied_ranges_cover_the_object(size: int) -> None:
    """They follow one another, none is over the bound, and none is under half of it needlessly."""
    pieces = list(copied_ranges(size, 100))
    assert [n for piece in pieces for n in piece] == list(range(size))
    assert all(len(piece) <= 100 for piece in pieces)
    assert len(pieces) == 1 or all(len(piece) >= 50 for piece in pieces)


def test_a_threshold_below_the_smallest_part_is_refused() -> None:
    """S3 takes no copied part under 5 MiB, so a lower threshold could never commit."""
    with pytest.raises(ValueError, match="at least 5242880"):
        S3Store("b", clock=SYSTEM, append_threshold=5 * MIB - 1)


# What an answer to the committing call means


@pytest.mark.parametrize("body", [LINE, BIG], ids=["put", "multipart"])
@pytest.mark.parametrize(
    "error", [no_answer(), reset(), answer("InternalError", 500), answer("SlowDown", 503)]
)
@pytest.mark.parametrize("done", [True, False], ids=["committed", "not committed"])
async def test_no_answer_means_nobody_knows(
    rig: S3Rig, faulty: FaultyClient, body: bytes, error: Exception, done: bool
) -> None:
    """Whether it was written or not, the caller is told that it is unknown, and nothing is tidied."""
    head = await begin(rig.store, "s", body)
    faulty.faults = [Fault(_commit_of(body), error, done)]
    with pytest.raises(CommitUnknownError):
        await rig.store.append("s", head, LINE, some_meta(2))
    assert "abort_multipart_upload" not in faulty.calls

    found = await rig.store.head("s")
    assert found is not None
    assert found.meta == some_meta(2 if done else 1)  # how the committer finds out
    await rig.store.append("s", found, LINE, some_meta(3))
    assert rig.raw("s") == body + LINE * (2 if done else 1)


async def test_an_upload_that_is_gone_at_the_end(rig: S3Rig, faulty: FaultyClient) -> None:
    """NoSuchUpload may mean that the completion worked already, so it is no refusal."""
    head = await begin(rig.store, "s", BIG)
    faulty.faults = [Fault("complete_multipart_upload", answer("NoSuchUpload", 404), done=True)]
    with pytest.raises(CommitUnknownError, match="NoSuchUpload"):
        await rig.store.append("s", head, LINE, some_meta(2))
    assert "abort_multipart_upload" not in faulty.calls
    assert rig.raw("s") == BIG + LINE


@pytest.mark.parametrize("body", [LINE, BIG], ids=["put", "multipart"])
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (answer("ConditionalRequestConflict", 409), CommitConflictError),
        (answer("OperationAborted", 409), CommitConflictError),
        (answer("PreconditionFailed", 412), CommitConflictError),
        (answer("NoSuchKey", 404), JournalGoneError),
        (answer("EntityTooLarge", 400), CommitRefusedError),
        (answer("InvalidRequest", 400), CommitRefusedError),
        (answer("MetadataTooLarge", 400), CommitRefusedError),
        (answer("NotImplemented", 501), CommitRefusedError),
        (answer("AccessDenied", 403), NotConfiguredError),
        (answer("NoSuchBucket", 404), NotConfiguredError),
        (answer("PermanentRedirect", 301), NotConfiguredError),
        (NoCredentialsError(), NotConfiguredError),
        (answer("RequestTimeout", 400), CommitUnknownError),
        (OSError("the network is down"), CommitUnknownError),
    ],
    ids=name_of,
)
async def test_a_definite_answer(
    rig: S3Rig, faulty: FaultyClient, body: bytes, error: Exception, expected: type[Exception]
) -> None:
    """Each refusal has its own error, and leaves no upload behind."""
    head = await begin(rig.store, "s", body)
    faulty.faults = [Fault(_commit_of(body), error)]
    with pytest.raises(expected):
        await rig.store.append("s", head, LINE, some_meta(2))
    assert rig.raw("s") == body
    if expected is not CommitUnknownError:
        assert uploads(rig) == []


@pytest.mark.parametrize("operation", ["create_multipart_upload", "upload_part_copy", "upload_part"])
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (no_answer(), StoreUnavailableError),
        (answer("InternalError", 500), StoreUnavailableError),
        (answer("NoSuchUpload", 404), StoreUnavailableError),
        (answer("PreconditionFailed", 412), CommitConflictError),
        (answer("NoSuchKey", 404), JournalGoneError),
        (answer("InvalidRequest", 400), CommitRefusedError),
        (answer("AccessDenied", 403), NotConfiguredError),
    ],
    ids=name_of,
)
async def test_before_the_committing_call_nothing_is_written(
    rig: S3Rig, faulty: FaultyClient, operation: str, error: Exception, expected: type[Exception]
) -> None:
    """A failure there is never an unknown outcome, and the upload is aborted."""
    head = await begin(rig.store, "s", BIG)
    faulty.faults = [Fault(operation, error)]
    with pytest.raises(expected):
        await rig.store.append("s", head, LINE, some_meta(2))
    assert rig.raw("s") == BIG
    assert uploads(rig) == []


async def test_an_abort_that_fails_hides_nothing(rig: S3Rig, faulty: FaultyClient) -> None:
    """The error is still that of the upload; the bucket's lifecycle removes what is left."""
    head = await begin(rig.store, "s", BIG)
    faulty.faults = [
        Fault("upload_part", answer("InvalidRequest", 400)),
        Fault("abort_multipart_upload", no_answer()),
    ]
    with pytest.raises(CommitRefusedError, match="InvalidRequest"):
        await rig.store.append("s", head, LINE, some_meta(2))
    assert uploads(rig) == [KEY]


@pytest.mark.parametrize(
    "at", ["create_multipart_upload", "upload_part_copy", "upload_part", "complete_multipart_upload"]
)
async def test_the_journal_grows_during_an_upload(rig: S3Rig, faulty: FaultyClient, at: str) -> None:
    """Another worker's commit in mid-upload is never lost: ours is refused, by S3 itself."""
    head = await begin(rig.store, "s", BIG)

    async def intrude(operation: str) -> None:
        if operation == at:
            faulty.before = None
            rig.adopt("s", BIG + b'{"other":1}\n')

    faulty.before = intrude
    with pytest.raises(CommitConflictError):
        await rig.store.append("s", head, LINE, some_meta(2))
    assert rig.raw("s") == BIG + b'{"other":1}\n'
    assert uploads(rig) == []


@pytest.mark.parametrize("at", ["upload_part_copy", "complete_multipart_upload"])
async def test_the_journal_is_deleted_during_an_upload(rig: S3Rig, faulty: FaultyClient, at: str) -> None:
    """A deletion in mid-upload is found out, and the upload does not bring the journal back."""
    head = await begin(rig.store, "s", BIG)

    async def intrude(operation: str) -> None:
        if operation == at:
            faulty.before = None
            rig.delete("s")

    faulty.before = intrude
    with pytest.raises(JournalGoneError):
        await rig.store.append("s", head, LINE, some_meta(2))
    assert await rig.store.head("s") is None
    assert uploads(rig) == []


@pytest.mark.parametrize(
    ("intruder", "expected"),
    [(b"{}\n", CommitConflictError), (None, JournalGoneError)],
    ids=["grown", "deleted"],
)
async def test_a_cold_body_of_another_version(
    rig: S3Rig, intruder: bytes | None, expected: type[CommitError]
) -> None:
    """A body is fetched at exactly the expected version, or not at all."""
    head = await begin(rig.store, "s", LINE)
    cold = S3Store(rig.bucket, clock=SYSTEM, client=FaultyClient())
    if intruder is None:
        rig.delete("s")
    else:
        rig.adopt("s", LINE + intruder)
    with pytest.raises(expected):
        await cold.append("s", head, LINE, some_meta(2))
    await cold.aclose()


async def test_a_cold_body_that_does_not_come(rig: S3Rig, faulty: FaultyClient) -> None:
    """Nothing was written, and that is what the error says."""
    head = await begin(rig.store, "s", LINE)
    rig.store._appender._cache.drop(KEY)
    faulty.faults = [Fault("get_object", no_answer())]
    with pytest.raises(StoreUnavailableError, match="nothing was written"):
        await rig.store.append("s", head, LINE, some_meta(2))


async def test_the_cache_never_hides_another_writer(rig: S3Rig) -> None:
    """After a conflict the next commit builds on what is there now."""
    head = await begin(rig.store, "s", LINE)
    rig.adopt("s", LINE + b'{"other":1}\n')
    with pytest.raises(CommitConflictError):
        await rig.store.append("s", head, LINE, some_meta(2))
    await rig.store.append("s", await rig.store.head("s"), LINE, some_meta(2))
    assert rig.raw("s") == LINE + b'{"other":1}\n' + LINE


# Reading, listing and the rest


async def test_a_missing_bucket_is_one_clear_error(rig: S3Rig, faulty: FaultyClient) -> None:
    """Every way in says that the bucket is missing, and what to do."""
    store = S3Store("no-such-bucket", clock=SYSTEM, client=faulty)
    head = Head("s", 8, '"1"', 0.0, None)
    ways = [
        lambda: store.head("s"),
        lambda: read(store, "s"),
        lambda: read(store, "s", 5, 5),
        lambda: begin(store, "s"),
        lambda: store.append("s", head, LINE, some_meta(2)),
        lambda: anext(store.journals()),
        lambda: store.put_blob("s", "w-1", b"{}"),
        store.probe,
    ]
    for way in ways:
        with pytest.raises(NotConfiguredError, match=r"no-such-bucket.*streamjournal init"):
            await way()


async def test_the_bucket_is_looked_for_once(rig: S3Rig, faulty: FaultyClient) -> None:
    """Heads of new sessions cost one request each."""
    for n in range(3):
        assert await rig.store.head(f"s{n}") is None
    assert faulty.calls == ["head_object", "head_bucket", "head_object", "head_object"]


@pytest.mark.parametrize(
    ("error", "expected", "text"),
    [
        (answer("403", 403), NotConfiguredError, "s3:ListBucket"),
        (NoCredentialsError(), NotConfiguredError, "AWS_PROFILE"),
        (answer("301", 301), NotConfiguredError, "AWS_REGION"),
        (answer("SlowDown", 503), ThrottledError, "SlowDown"),
        (answer("503", 503), StoreUnavailableError, "bucket"),
        (no_answer(), StoreUnavailableError, "bucket"),
        (reset(), StoreUnavailableError, "bucket"),
    ],
    ids=name_of,
)
async def test_errors_of_other_calls(
    rig: S3Rig, faulty: FaultyClient, error: Exception, expected: type[Exception], text: str
) -> None:
    """A read that fails says what to do, or that it may work later."""
    for operation, way in (
        ("head_object", lambda: rig.store.head("s")),
        ("head_object", lambda: rig.store.was_deleted("s")),
        ("get_object", lambda: read(rig.store, "s")),
        ("put_object", lambda: rig.store.put_blob("s", "w-1", b"{}")),
    ):
        faulty.faults = [Fault(operation, error)]
        with pytest.raises(expected, match=text):
            await way()


async def test_whether_a_journal_was_deleted_is_one_request(rig: S3Rig, faulty: FaultyClient) -> None:
    """By the delete marker; once every version was deleted there is none."""
    await begin(rig.store, "s", LINE)
    rig.delete("s")
    faulty.calls.clear()
    assert await rig.store.was_deleted("s")
    assert faulty.calls == ["head_object"]
    found = rig.client.list_object_versions(Bucket=rig.bucket)
    for one in found["Versions"] + found["DeleteMarkers"]:
        rig.client.delete_object(Bucket=rig.bucket, Key=one["Key"], VersionId=one["VersionId"])
    assert not await rig.store.was_deleted("s")


async def test_without_versioning_a_deletion_leaves_no_trace(rig: S3Rig, faulty: FaultyClient) -> None:
    """It is as if there had never been a journal."""
    bucket = f"{rig.bucket}-plain"
    rig.client.create_bucket(Bucket=bucket)
    store = S3Store(bucket, clock=SYSTEM, client=faulty)
    await begin(store, "s", LINE)
    rig.client.delete_object(Bucket=bucket, Key=KEY)
    assert not await store.was_deleted("s")


async def test_metadata_of_a_newer_version_is_refused(rig: S3Rig) -> None:
    """An older program neither reads nor extends what a newer one wrote."""
    rig.client.put_object(Bucket=rig.bucket, Key=KEY, Body=LINE, Metadata={"sj-version": "9"})
    with pytest.raises(CommitRefusedError, match="upgrade streamjournal"):
        await rig.store.head("s")
    with pytest.raises(CommitRefusedError, match="upgrade streamjournal"):
        await read(rig.store, "s")


async def test_other_tools_metadata_is_none_of_ours(rig: S3Rig) -> None:
    """An adopted object may have metadata of its own."""
    rig.client.put_object(Bucket=rig.bucket, Key=KEY, Body=LINE, Metadata={"uploaded-by": "somebody"})
    head = await rig.store.head("s")
    assert head is not None
    assert head.meta is None


async def test_a_journal_that_grows_between_the_answers(rig: S3Rig, faulty: FaultyClient) -> None:
    """The range was beyond the end, and is not any more when the head is asked for: it is read again."""
    head = await begin(rig.store, "s", LINE)

    async def grow(operation: str) -> None:
        if operation == "head_object":
            faulty.before = None
            rig.adopt("s", LINE * 2)

    faulty.before = grow
    assert await read(rig.store, "s", head.size) == LINE


async def test_a_read_is_one_request(rig: S3Rig, faulty: FaultyClient) -> None:
    """Body, position and numbers come in one GET; the end of a journal costs no more."""
    await begin(rig.store, "s", BIG)
    faulty.calls.clear()
    async with rig.store.open("s", -1000) as body:
        assert body is not None
        assert (body.head.meta, body.head.size, body.start) == (some_meta(1), len(BIG), len(BIG) - 1000)
        assert sum([len(piece) async for piece in body.chunks]) == 1000
    assert faulty.calls == ["get_object"]
    assert await read(rig.store, "another") is None
    assert faulty.calls == ["get_object"] * 2


async def test_more_journals_than_a_page(rig: S3Rig, faulty: FaultyClient) -> None:
    """A listing goes on over its pages, in the order of the keys."""
    for n in range(23):
        rig.adopt(f"s{n}", b"")
    faulty.page_size = 5
    names = [it.name async for it in rig.store.journals()]
    assert names == sorted((f"s{n}" for n in range(23)), key=lambda name: name + "/")
    assert faulty.calls == ["list_objects_v2"] * 5


async def test_a_long_first_line_names_its_session(rig: S3Rig) -> None:
    """The id of a hashed name is found in a first line of megabytes, too."""
    session_id = "x" * 250
    line = msgspec.json.encode({"details": "y" * 3 * MIB, "session_id": session_id, "event_type": "A"})
    await begin(rig.store, session_id, line + b"\n" + LINE)
    (listed,) = [it async for it in rig.store.journals()]
    assert listed.session_id is None
    head = await rig.store.head_named(listed.name)
    assert head is not None
    assert head.session_id == session_id


async def test_a_dead_letter_that_cannot_be_kept_is_an_error(rig: S3Rig, faulty: FaultyClient) -> None:
    """One failed letter fails the call, as a plain error, so that the shard does not move on."""
    letters = [DeadLetter("s", "shard", str(n), 0, "k", "no JSON", b"\xff") for n in range(40)]
    faulty.faults = [Fault("put_object", no_answer())]
    with pytest.raises(UnavailableError):
        await rig.store.put_dead_letters(letters)
    keys = await rig.store.put_dead_letters(letters)
    found = rig.client.get_object(Bucket=rig.bucket, Key=keys[7])["Body"].read()
    assert msgspec.json.decode(found, type=DeadLetter) == letters[7]


# The probe


async def test_the_probe_tidies_up(rig: S3Rig, faulty: FaultyClient) -> None:
    """It tries all three conditions and leaves neither object nor upload."""
    await rig.store.probe()
    assert faulty.calls.count("put_object") == 3
    assert faulty.calls.count("complete_multipart_upload") == 1
    assert rig.client.list_objects_v2(Bucket=rig.bucket)["KeyCount"] == 0
    assert uploads(rig) == []


@pytest.mark.parametrize(
    ("ignored", "text"),
    [
        ("IfNoneMatch", "If-None-Match: .* over an existing object"),
        ("IfMatch of put_object", "PutObject with a wrong If-Match"),
        ("IfMatch of complete_multipart_upload", "CompleteMultipartUpload with a wrong If-Match"),
    ],
)
async def test_the_probe_finds_a_condition_that_is_ignored(rig: S3Rig, ignored: str, text: str) -> None:
    """A store that ignores one of the conditions is refused, by name."""
    client = _CarelessClient(ignored)
    store = S3Store(rig.bucket, clock=SYSTEM, client=client)
    with pytest.raises(UnsafeStoreError, match=text):
        await store.probe()
    assert rig.client.list_objects_v2(Bucket=rig.bucket)["KeyCount"] == 0
    assert uploads(rig) == []
    await store.aclose()


async def test_the_probe_finds_a_store_that_knows_no_conditions(rig: S3Rig, faulty: FaultyClient) -> None:
    """NotImplemented to a conditional write is no pass either."""
    faulty.faults = [Fault("complete_multipart_upload", answer("NotImplemented", 501))]
    with pytest.raises(UnsafeStoreError, match="does not know CompleteMultipartUpload"):
        await rig.store.probe()


async def test_the_probe_survives_its_own_request_sent_twice(rig: S3Rig, faulty: FaultyClient) -> None:
    """The connection below the SDK may send a PUT again when it breaks; then the object is there already."""
    faulty.faults = [Fault("put_object", answer("PreconditionFailed", 412), done=True)]
    await rig.store.probe()
    assert faulty.calls[-1] == "delete_object"


async def test_a_probe_that_is_cancelled_tidies_up(rig: S3Rig, faulty: FaultyClient) -> None:
    """Its time may be up in the middle; the scratch object and upload go all the same."""
    scope = anyio.CancelScope()

    async def cancel(operation: str) -> None:
        if operation == "complete_multipart_upload":
            scope.cancel()

    faulty.before = cancel
    with scope:
        await rig.store.probe()
    assert scope.cancelled_caught
    assert faulty.calls[-2:] == ["abort_multipart_upload", "delete_object"]
    assert "Contents" not in rig.client.list_objects_v2(Bucket=rig.bucket)
    assert "Uploads" not in rig.client.list_multipart_uploads(Bucket=rig.bucket)


async def test_a_probe_without_an_answer_is_no_verdict(rig: S3Rig, faulty: FaultyClient) -> None:
    """An outage during the probe is an outage, not an unsafe store."""
    faulty.faults = [Fault("complete_multipart_upload", no_answer())]
    with pytest.raises(StoreUnavailableError):
        await rig.store.probe()


async def test_a_probe_that_may_not_delete_still_counts(rig: S3Rig, faulty: FaultyClient) -> None:
    """A worker needs no permission to delete; its scratch object stays, outside the journals."""
    faulty.faults = [Fault("delete_object", answer("AccessDenied", 403))]
    await rig.store.probe()
    assert [it async for it in rig.store.journals()] == []


class _CarelessClient(FaultyClient):
    """Sends requests without one of their conditions: to the caller, a store that ignores it."""

    def __init__(self, ignored: str) -> None:
        super().__init__()
        self._condition, _, self._operation = ignored.partition(" of ")

    async def get(self) -> Any:
        client = await super().get()
        condition, operation = self._condition, self._operation

        class Careless:
            def __getattr__(self, name: str) -> Any:
                call = getattr(client, name)

                async def without(**arguments: Any) -> Any:
                    if operation in ("", name):
                        arguments.pop(condition, None)
                    return await call(**arguments)

                return without

        return Careless()


def _commit_of(body: bytes) -> str:
    return "put_object" if body is LINE else "complete_multipart_upload"
