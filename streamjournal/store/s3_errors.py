"""What S3 answers, in our words. Source: the S3 API reference, "Error responses".

A call that may have changed a journal (the committing call) is judged apart from all others: there
no answer means that nobody knows, while anywhere else it means that nothing happened.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import aiohttp
from botocore import exceptions as boto

from streamjournal.core.aws import error_code, explain, is_retryable, status_code
from streamjournal.core.errors import (
    CommitConflictError,
    CommitRefusedError,
    CommitUnknownError,
    JournalGoneError,
    NotConfiguredError,
    StoreUnavailableError,
    StreamjournalError,
)

S3_ERRORS: Final = (boto.ClientError, boto.BotoCoreError, aiohttp.ClientError, OSError, TimeoutError)

_MISSING: Final = frozenset({"NoSuchKey", "404", "NotFound"})
_CONDITION_FAILED: Final = frozenset({"PreconditionFailed", "412"})
# "A conflicting conditional operation is in progress": S3 has not done ours, and asks to fetch the
# ETag and try again, which is what the committer does after a conflict
_CONFLICTING: Final = frozenset({"ConditionalRequestConflict", "OperationAborted", "409"})
# 400s that speak of the transfer, not of the request: the same one may work
_TRANSFER: Final = frozenset({"RequestTimeout", "IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch"})
_ELSEWHERE: Final = frozenset(
    {"PermanentRedirect", "301", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
)


@contextmanager
def explained(bucket: str) -> Iterator[None]:
    """Raise what an SDK error inside means, for any call but the committing one.

    Raises:
        StoreUnavailableError, ThrottledError: it may work later.
        NotConfiguredError: no such bucket, no access, no credentials, no region.
    """
    try:
        yield
    except S3_ERRORS as problem:
        raise explain_s3(problem, bucket) from problem


def is_missing(error: BaseException) -> bool:
    """Whether there is no such object (or, for a HEAD, which has no text, no such bucket)."""
    return error_code(error) in _MISSING


def is_delete_marker(error: BaseException) -> bool:
    """Whether a missing object was deleted from a bucket that keeps versions.

    Source: the S3 API reference, HeadObject, response header `x-amz-delete-marker`.
    """
    if not isinstance(error, boto.ClientError):
        return False
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return bool(headers.get("x-amz-delete-marker", "").lower() == "true")


def is_beyond_end(error: BaseException) -> bool:
    """Whether the range asked for holds no byte of the object."""
    return error_code(error) in ("InvalidRange", "416")


def is_refused_condition(error: BaseException) -> bool:
    """Whether the precondition did not hold, so that nothing was done."""
    return error_code(error) in _CONDITION_FAILED or error_code(error) in _CONFLICTING


def explain_s3(error: BaseException, bucket: str) -> StreamjournalError:
    """An SDK error as one of ours, saying what to do."""
    what = f"bucket {bucket}"
    code = error_code(error)
    if code == "NoSuchBucket":
        return NotConfiguredError(
            f"{what} does not exist; make it with `streamjournal init`, or set STREAMJOURNAL_BUCKET"
        )
    if code in _ELSEWHERE:
        return NotConfiguredError(f"{what} is in another region; set AWS_REGION to its own ({error})")
    if isinstance(error, boto.ParamValidationError):
        return NotConfiguredError(f"{what}: {error}; check STREAMJOURNAL_BUCKET")
    if status_code(error) in (401, 403):
        return NotConfiguredError(
            f"{what}: access denied ({code}): allow s3:GetObject, s3:PutObject, "
            f"s3:AbortMultipartUpload on its objects and s3:ListBucket on the bucket ({error})"
        )
    if code in _TRANSFER:
        return StoreUnavailableError(f"{what}: {error}")
    return explain(error, what, unavailable=StoreUnavailableError)


def explain_commit(error: BaseException, bucket: str, key: str) -> StreamjournalError:
    """What the committing call's error says of the journal, see `store.port.Store.append`."""
    code = error_code(error)
    if code in _CONDITION_FAILED or code in _CONFLICTING:
        return CommitConflictError(f"{key}: {code}")
    if code == "NoSuchKey":
        return JournalGoneError(f"{key} does not exist any more")
    # our own complete may have worked, and its answer was lost: then the upload is gone as well
    if code == "NoSuchUpload" or code in _TRANSFER:
        return CommitUnknownError(f"{key}: {error}")
    if code == "NotImplemented":
        return CommitRefusedError(f"{key}: the store does not know conditional writes ({error})")
    if is_retryable(error):
        return CommitUnknownError(f"{key}: {type(error).__name__}: {error}")
    known = explain_s3(error, bucket)
    if isinstance(known, NotConfiguredError):
        return known
    if isinstance(error, boto.ClientError) and 400 <= status_code(error) < 500:
        return CommitRefusedError(f"{key}: {error}")
    return CommitUnknownError(f"{key}: {type(error).__name__}: {error}")


def explain_preparation(error: BaseException, bucket: str, key: str) -> StreamjournalError:
    """The same for a call before the committing one: without an answer, nothing was written."""
    known = explain_commit(error, bucket, key)
    if isinstance(known, CommitUnknownError):
        return StoreUnavailableError(f"nothing was written: {known}")
    return known
