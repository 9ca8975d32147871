"""The commit protocol on S3: one conditional write, tried once, that makes a journal longer.

=====================  =====================================================================
the journal            is written by
=====================  =====================================================================
does not exist         PutObject, If-None-Match: *
under the threshold    PutObject of cached body + new lines, If-Match
above it               a multipart upload: UploadPartCopy of the old object (which stays in
                       S3), UploadPart of the new lines, CompleteMultipartUpload, If-Match
=====================  =====================================================================

Sources: S3 user guide, "Conditional writes" and "Multipart upload limits".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final, NamedTuple

import structlog

from streamjournal.core.aws import AwsClient
from streamjournal.core.errors import CommitUnknownError
from streamjournal.store.body_cache import BodyCache
from streamjournal.store.port import Head
from streamjournal.store.s3_errors import S3_ERRORS, explain_commit, explain_preparation

CONTENT_TYPE: Final = "application/x-jsonlines"
MIN_PART: Final = 5 * 2**20  # of every part but the last
_MAX_OWN: Final = 4096  # journals whose last own version is remembered; a miss is one GET of a byte
MAX_COPIED_PART: Final = 2**30  # S3 allows 5 GiB; smaller ones answer within the time-out

_log = structlog.get_logger(__name__)


class Written(NamedTuple):
    """A new version."""

    etag: str
    size: int


class Appender:
    """Appends to objects of one bucket.

    Args:
        client: with the SDK's retries off: the retry of a write that worked would look like
            somebody else's write.
        cache: bodies of journals under the threshold.
        threshold: bytes from which on an object is copied inside S3; at least 5 MiB, the smallest
            part that S3 allows.
    """

    def __init__(
        self,
        client: AwsClient,
        bucket: str,
        cache: BodyCache,
        *,
        threshold: int,
        max_copied_part: int = MAX_COPIED_PART,
    ) -> None:
        if threshold < MIN_PART:
            raise ValueError(f"append_threshold must be at least {MIN_PART} bytes, the smallest part of S3")
        self._client = client
        self._bucket = bucket
        self._cache = cache
        self._threshold = threshold
        self._max_copied_part = max_copied_part
        self._own: OrderedDict[str, str] = OrderedDict()  # key -> the version written last, of large journals

    async def append(self, key: str, base: Head | None, lines: bytes, fields: dict[str, str]) -> Written:
        """Write the next version of an object; see `store.port.Store.append` for what it raises."""
        s3 = await self._client.get()
        if base is None:
            return await self._put(s3, key, lines, fields, {"IfNoneMatch": "*"})
        if base.size >= self._threshold:
            self._cache.drop(key)
            return await self._append_part(s3, key, base, lines, fields)
        body = self._cache.get(key, base.version)
        if body is None:
            body = await self._get(s3, key, base)
        newline = b"\n" if body and not body.endswith(b"\n") else b""
        whole = b"".join((body, newline, lines))
        return await self._put(s3, key, whole, fields, {"IfMatch": base.version})

    async def _put(
        self, s3: Any, key: str, body: bytes, fields: dict[str, str], condition: dict[str, str]
    ) -> Written:
        try:
            answer = await s3.put_object(
                Bucket=self._bucket,
                Key=key,
                Body=body,
                ContentType=CONTENT_TYPE,
                Metadata=fields,
                **condition,
            )
        except S3_ERRORS as problem:
            self._cache.drop(key)
            raise explain_commit(problem, self._bucket, key) from problem
        if len(body) < self._threshold:
            self._cache.put(key, answer["ETag"], body)
        else:
            self._cache.drop(key)
            self._remember(key, answer["ETag"])
        return Written(answer["ETag"], len(body))

    async def _get(self, s3: Any, key: str, base: Head, **arguments: str) -> bytes:
        """The object's bytes at exactly that version."""
        try:
            answer = await s3.get_object(Bucket=self._bucket, Key=key, IfMatch=base.version, **arguments)
            async with answer["Body"] as stream:
                body: bytes = await stream.read()
        except S3_ERRORS as problem:
            raise explain_preparation(problem, self._bucket, key) from problem
        return body

    async def _append_part(
        self, s3: Any, key: str, base: Head, lines: bytes, fields: dict[str, str]
    ) -> Written:
        if self._own.get(key) != base.version and await self._get(s3, key, base, Range="bytes=-1") != b"\n":
            lines = b"\n" + lines  # what we committed ends with a newline; what was adopted or edited may not
        upload = await self._begin_upload(s3, key, fields)
        parts = await self._upload_parts(s3, upload, base, lines)
        return await self._complete(s3, upload, parts, base, base.size + len(lines))

    async def _begin_upload(self, s3: Any, key: str, fields: dict[str, str]) -> dict[str, str]:
        try:
            answer = await s3.create_multipart_upload(
                Bucket=self._bucket, Key=key, ContentType=CONTENT_TYPE, Metadata=fields
            )
        except S3_ERRORS as problem:
            raise explain_preparation(problem, self._bucket, key) from problem
        return {"Bucket": self._bucket, "Key": key, "UploadId": answer["UploadId"]}

    async def _upload_parts(
        self, s3: Any, upload: dict[str, str], base: Head, lines: bytes
    ) -> list[dict[str, Any]]:
        """Copy the old object and add the new lines; nothing shows before the upload is completed."""
        etags: list[str] = []
        try:
            for piece in copied_ranges(base.size, self._max_copied_part):
                answer = await s3.upload_part_copy(
                    **upload,
                    PartNumber=len(etags) + 1,
                    CopySource={"Bucket": self._bucket, "Key": upload["Key"]},
                    CopySourceIfMatch=base.version,
                    CopySourceRange=f"bytes={piece.start}-{piece.stop - 1}",
                )
                etags.append(answer["CopyPartResult"]["ETag"])
            answer = await s3.upload_part(**upload, PartNumber=len(etags) + 1, Body=lines)
            etags.append(answer["ETag"])
        except S3_ERRORS as problem:
            await self._abort(s3, upload)
            raise explain_preparation(problem, self._bucket, upload["Key"]) from problem
        return [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, start=1)]

    async def _complete(
        self, s3: Any, upload: dict[str, str], parts: list[dict[str, Any]], base: Head, size: int
    ) -> Written:
        try:
            answer = await s3.complete_multipart_upload(
                **upload, MultipartUpload={"Parts": parts}, IfMatch=base.version, MpuObjectSize=size
            )
        except S3_ERRORS as problem:
            known = explain_commit(problem, self._bucket, upload["Key"])
            if not isinstance(known, CommitUnknownError):  # else it may be at work still
                await self._abort(s3, upload)
            raise known from problem
        self._remember(upload["Key"], answer["ETag"])
        return Written(answer["ETag"], size)

    def _remember(self, key: str, version: str) -> None:
        """A version that this process wrote needs no look at its last byte."""
        self._own[key] = version
        self._own.move_to_end(key)
        if len(self._own) > _MAX_OWN:
            self._own.popitem(last=False)

    async def _abort(self, s3: Any, upload: dict[str, str]) -> None:
        try:
            await s3.abort_multipart_upload(**upload)
        except S3_ERRORS as problem:  # the bucket's lifecycle removes what is left, see `init`
            _log.warning("upload_not_aborted", key=upload["Key"], reason=str(problem))


def copied_ranges(size: int, most: int) -> Iterator[range]:
    """`size` bytes in as few even pieces of at most `most` as possible."""
    count = -(-size // most)
    bounds = [size * i // count for i in range(count + 1)]
    return (range(first, last) for first, last in pairwise(bounds))
