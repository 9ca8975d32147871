"""The doctor's look at the bucket: that it is there, each call allowed, and its conditions kept."""

from __future__ import annotations

from typing import Any, Final

from botocore import exceptions as boto

from streamjournal.admin.doctor.aws import Permissions, Service, fault_of, is_there, look_at_endpoint
from streamjournal.admin.doctor.check import Check, Checks, failed, ok, skipped
from streamjournal.admin.doctor.planned import check_aspects
from streamjournal.core.aws import error_code
from streamjournal.core.settings import Settings
from streamjournal.store.names import SCRATCH
from streamjournal.store.port import Store

_EVERYBODY: Final = "workers and readers need it"
_WORKERS: Final = "workers need it, and emitters for what is larger than a record"
_ELSEWHERE: Final = ("301", "PermanentRedirect", "AuthorizationHeaderMalformed")


async def check_bucket(
    settings: Settings, service: Service, store: Store, seconds: float, token: str
) -> list[Check]:
    """The bucket, the permissions on it, whether it keeps conditions, and what `init` would change.

    Args:
        token: of the scratch object's name, which lies outside the journals' prefix.
    """
    bucket = settings.bucket_name()
    checks = Checks("S3", seconds)
    what = f"bucket {bucket}"

    async def look() -> Check:
        try:
            answer = await service.ask("head_bucket", Bucket=bucket)
        except boto.ClientError as problem:
            return _unreachable(what, problem)
        headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        region = headers.get("x-amz-bucket-region")
        return ok(what, f"there, in {region}" if region else "there", region=region)

    await checks.run("endpoint s3", lambda: look_at_endpoint(service))
    await checks.run(what, look)
    if not is_there(service, checks):
        return checks.done
    may = Permissions(checks, service, f"the objects of bucket {bucket}")
    on_bucket = Permissions(checks, service, f"bucket {bucket}")
    listing = {"Bucket": bucket, "Prefix": settings.prefix, "MaxKeys": 1}
    await on_bucket.attempt("s3:ListBucket", _EVERYBODY, "list_objects_v2", listing)
    writable = await _try_objects(may, {"Bucket": bucket, "Key": f"{SCRATCH}doctor-{token}"})
    if writable:
        await checks.run("conditional writes", lambda: _probe(store, bucket))
    else:
        checks.add(skipped("conditional writes", "nothing may be written, so nothing can be probed"))
    await check_aspects(checks, settings)
    return checks.done


def _unreachable(what: str, problem: boto.ClientError) -> Check:
    code = error_code(problem)
    if code in ("404", "NoSuchBucket"):
        remedy = "`streamjournal init` makes it; STREAMJOURNAL_BUCKET chooses another"
        return failed(what, "does not exist", remedy)
    if code in _ELSEWHERE:
        headers = problem.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        region = headers.get("x-amz-bucket-region", "its own")
        return failed(what, "is in another region", f"set AWS_REGION={region}")
    return fault_of(what, problem, action="s3:ListBucket", resource=what, needed_by=_EVERYBODY)


async def _try_objects(may: Permissions, scratch: dict[str, Any]) -> bool:
    """Write, read and delete a scratch object; whether it could be written."""
    body = {"Body": b"{}\n", "IfNoneMatch": "*"}
    written = await may.attempt("s3:PutObject", _WORKERS, "put_object", scratch | body)
    if written is None:
        may.skip("s3:GetObject", "nothing could be written to be read")
        may.skip("s3:AbortMultipartUpload", "no upload could be begun")
        may.skip("s3:DeleteObject", "nothing was written")
        return False
    await may.attempt("s3:GetObject", _EVERYBODY, "get_object", scratch)
    begun = await may.attempt_quietly("create_multipart_upload", **scratch)
    if begun is None:
        may.skip("s3:AbortMultipartUpload", "no upload could be begun")
    else:
        await may.attempt(
            "s3:AbortMultipartUpload",
            "workers need it, or what they give up stays until the bucket's lifecycle ends it",
            "abort_multipart_upload",
            scratch | {"UploadId": begun["UploadId"]},
        )
    await may.attempt(
        "s3:DeleteObject",
        "only `dead-letters replay` needs it, and probes that tidy up",
        "delete_object",
        scratch,
        optional=True,
    )
    return True


async def _probe(store: Store, bucket: str) -> Check:
    """By the worker's own probe, which it runs before it writes anything."""
    await store.probe()
    what = "on PutObject and on CompleteMultipartUpload"
    return ok("conditional writes", f"bucket {bucket} refuses a wrong ETag, {what}")
