"""Whether a bucket really refuses a write whose precondition is false.

S3 does. Stores that only speak its protocol may take the header and ignore it, and then two workers
overwrite each other's lines without a sign; so a worker asks before it writes anything.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Final

import anyio
import structlog

from streamjournal.core.aws import error_code
from streamjournal.core.errors import UnsafeStoreError
from streamjournal.store.s3_errors import S3_ERRORS, explained, is_refused_condition

_WRONG_ETAG: Final = '"00000000000000000000000000000000"'
_BODY: Final = b"{}\n"
_TIDY_SECONDS: Final = 2.0

_log = structlog.get_logger(__name__)


async def probe(s3: Any, bucket: str, key: str) -> None:
    """Try each conditional write of the commit protocol on a scratch object, and delete it again.

    Args:
        key: of an object that nothing else uses.

    Raises:
        UnsafeStoreError: one was not refused; the text names it.
    """
    scratch = {"Bucket": bucket, "Key": key}
    with explained(bucket):
        await _begin(s3, scratch)
        try:
            await _must_be_refused(
                bucket,
                "PutObject with If-None-Match: * over an existing object",
                s3.put_object(**scratch, Body=_BODY, IfNoneMatch="*"),
            )
            await _must_be_refused(
                bucket,
                "PutObject with a wrong If-Match",
                s3.put_object(**scratch, Body=_BODY, IfMatch=_WRONG_ETAG),
            )
            await _probe_multipart(s3, scratch)
        finally:
            await _tidy("scratch_object_not_deleted", key, s3.delete_object(**scratch))


async def _begin(s3: Any, scratch: dict[str, str]) -> None:
    """Make the object. That it is there already can only be this request itself, sent again by the
    connection below the SDK when its answer was lost.
    """
    try:
        await s3.put_object(**scratch, Body=_BODY, IfNoneMatch="*")
    except S3_ERRORS as problem:
        if not is_refused_condition(problem):
            raise


async def _probe_multipart(s3: Any, scratch: dict[str, str]) -> None:
    upload = {**scratch, "UploadId": (await s3.create_multipart_upload(**scratch))["UploadId"]}
    try:
        part = await s3.upload_part(**upload, PartNumber=1, Body=_BODY)
        parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
        await _must_be_refused(
            scratch["Bucket"],
            "CompleteMultipartUpload with a wrong If-Match",
            s3.complete_multipart_upload(**upload, MultipartUpload=parts, IfMatch=_WRONG_ETAG),
        )
    except UnsafeStoreError:
        raise  # the upload became the object, and there is none to abort
    except BaseException:
        await _abort(s3, upload)
        raise
    await _abort(s3, upload)


async def _abort(s3: Any, upload: dict[str, str]) -> None:
    await _tidy("scratch_upload_not_aborted", upload["Key"], s3.abort_multipart_upload(**upload))


async def _must_be_refused(bucket: str, what: str, call: Awaitable[Any]) -> None:
    try:
        await call
    except S3_ERRORS as problem:
        if is_refused_condition(problem):
            return
        if error_code(problem) == "NotImplemented":
            raise UnsafeStoreError(
                f"bucket {bucket} does not know {what}; use a store that does"
            ) from problem
        raise
    raise UnsafeStoreError(
        f"bucket {bucket} accepts {what}, so two workers could overwrite each other's lines; "
        "use S3, or a store that enforces conditional writes"
    )


async def _tidy(event: str, key: str, call: Awaitable[Any]) -> None:
    """The probe's answer counts, not whether it may delete: a worker needs no s3:DeleteObject.

    Done for a moment even when the probe is cancelled (the doctor does, when its time is up).
    """
    with anyio.move_on_after(_TIDY_SECONDS, shield=True):
        try:
            await call
        except S3_ERRORS as problem:
            _log.warning(event, key=key, reason=str(problem))
