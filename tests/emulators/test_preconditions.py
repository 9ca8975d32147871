"""The emulated S3 refuses what S3 refuses; a commit protocol tested on less would prove nothing."""

from __future__ import annotations

from typing import Any, Final

import pytest
from botocore.exceptions import ClientError

pytestmark = pytest.mark.aws

PART = 5 * 2**20  # S3's minimum, except for the last part
KEY = "journals/swe-agent-claude35%2Fastropy__astropy-12907/journal.jsonl"
WRONG = '"00000000000000000000000000000000"'


class Bucket:
    """A bucket with shorthands that keep the tests readable."""

    def __init__(self, client: Any, name: str) -> None:
        self.client = client
        self.name = name

    def call(self, operation: str, key: str = KEY, **arguments: Any) -> Any:
        return getattr(self.client, operation)(Bucket=self.name, Key=key, **arguments)

    def refused(self, operation: str, key: str = KEY, **arguments: Any) -> tuple[int, str]:
        """The status and code of the error that the call must end in."""
        with pytest.raises(ClientError) as caught:
            self.call(operation, key, **arguments)
        answer = caught.value.response
        return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]

    def put(self, body: bytes = b"one\n", key: str = KEY) -> str:
        etag: str = self.call("put_object", key, Body=body)["ETag"]
        return etag

    def body(self, key: str = KEY) -> bytes:
        data: bytes = self.call("get_object", key)["Body"].read()
        return data

    def upload(self, *parts: bytes, **arguments: Any) -> dict[str, Any]:
        """Begin a multipart upload and upload its parts; the arguments that complete it."""
        upload = self.call("create_multipart_upload", **arguments)["UploadId"]
        done = [
            {
                "PartNumber": n,
                "ETag": self.call("upload_part", UploadId=upload, PartNumber=n, Body=part)["ETag"],
            }
            for n, part in enumerate(parts, start=1)
        ]
        return {"UploadId": upload, "MultipartUpload": {"Parts": done}}


@pytest.fixture
def bucket(aws_bucket: Any, aws_client: Any, aws_emulator: str) -> Bucket:
    return Bucket(aws_client("s3", aws_emulator), aws_bucket())


@pytest.mark.parametrize("operation", ["put_object", "complete_multipart_upload"])
class TestConditionalWrites:
    """The same answers, whether a commit is one PUT or a multipart upload."""

    @staticmethod
    def arguments(bucket: Bucket, operation: str) -> dict[str, Any]:
        return {"Body": b"two\n"} if operation == "put_object" else bucket.upload(b"two\n")

    def test_right_etag(self, bucket: Bucket, operation: str) -> None:
        """If-Match with the current ETag replaces the object, quotes or no quotes around it."""
        etag = bucket.put()
        bucket.call(operation, IfMatch=etag, **self.arguments(bucket, operation))
        assert bucket.body() == b"two\n"
        etag = bucket.put(b"three\n").strip('"')
        bucket.call(operation, IfMatch=etag, **self.arguments(bucket, operation))
        assert bucket.body() == b"two\n"

    def test_wrong_etag(self, bucket: Bucket, operation: str) -> None:
        """If-Match with another ETag is 412 and leaves the object as it was."""
        bucket.put()
        arguments = self.arguments(bucket, operation)
        assert bucket.refused(operation, IfMatch=WRONG, **arguments) == (412, "PreconditionFailed")
        assert bucket.body() == b"one\n"

    def test_no_object(self, bucket: Bucket, operation: str) -> None:
        """If-Match on an object that does not exist, or was deleted, is 404."""
        arguments = self.arguments(bucket, operation)
        assert bucket.refused(operation, IfMatch=WRONG, **arguments) == (404, "NoSuchKey")
        etag = bucket.put()
        bucket.call("delete_object")
        assert bucket.refused(operation, IfMatch=etag, **arguments) == (404, "NoSuchKey")

    def test_if_none_match(self, bucket: Bucket, operation: str) -> None:
        """If-None-Match: * creates an object, and is 412 where there is one."""
        bucket.call(operation, IfNoneMatch="*", **self.arguments(bucket, operation))
        arguments = self.arguments(bucket, operation)
        assert bucket.refused(operation, IfNoneMatch="*", **arguments) == (412, "PreconditionFailed")

    def test_no_bucket(self, bucket: Bucket, operation: str) -> None:
        """A bucket that does not exist is told from an object that does not."""
        arguments = {"Body": b""} if operation == "put_object" else {"UploadId": "x"}
        missing = Bucket(bucket.client, "no-such-bucket")
        assert missing.refused(operation, IfMatch=WRONG, **arguments) == (404, "NoSuchBucket")


@pytest.mark.parametrize("operation", ["copy_object", "upload_part_copy"])
class TestCopies:
    """Copying from an object that may have changed meanwhile."""

    @staticmethod
    def arguments(bucket: Bucket, operation: str) -> dict[str, Any]:
        source = {"CopySource": {"Bucket": bucket.name, "Key": KEY}}
        if operation == "copy_object":
            return source
        upload = bucket.call("create_multipart_upload", "copy")["UploadId"]
        return {**source, "UploadId": upload, "PartNumber": 1}

    def test_right_etag(self, bucket: Bucket, operation: str) -> None:
        """x-amz-copy-source-if-match with the source's ETag copies it."""
        etag = bucket.put()
        arguments = self.arguments(bucket, operation)
        answer = bucket.call(operation, "copy", CopySourceIfMatch=etag, **arguments)
        result = answer.get("CopyObjectResult") or answer["CopyPartResult"]
        assert result["ETag"] == etag

    def test_wrong_etag(self, bucket: Bucket, operation: str) -> None:
        """x-amz-copy-source-if-match with another ETag is 412."""
        bucket.put()
        arguments = self.arguments(bucket, operation)
        refused = bucket.refused(operation, "copy", CopySourceIfMatch=WRONG, **arguments)
        assert refused == (412, "PreconditionFailed")

    def test_no_source(self, bucket: Bucket, operation: str) -> None:
        """A source that does not exist is 404 with S3's code, not an empty answer."""
        arguments = self.arguments(bucket, operation)
        refused = bucket.refused(operation, "copy", CopySourceIfMatch=WRONG, **arguments)
        assert refused == (404, "NoSuchKey")


class TestMultipart:
    """The server-side append of a large journal."""

    def test_append(self, bucket: Bucket) -> None:
        """The old object as a copied part, new bytes as the next: the sum of both, with metadata."""
        etag = bucket.put(b"a" * PART)
        upload = bucket.call("create_multipart_upload", Metadata={"sj-commit": "x"})["UploadId"]
        source = {"Bucket": bucket.name, "Key": KEY}
        whole: dict[str, Any] = {"PartNumber": 1, "CopySource": source, "CopySourceIfMatch": etag}
        copied = bucket.call("upload_part_copy", UploadId=upload, **whole)["CopyPartResult"]
        added = bucket.call("upload_part", UploadId=upload, PartNumber=2, Body=b"b\n")
        parts = [{"PartNumber": n, "ETag": e["ETag"]} for n, e in ((1, copied), (2, added))]
        completed = {"UploadId": upload, "MultipartUpload": {"Parts": parts}, "IfMatch": etag}
        bucket.call("complete_multipart_upload", MpuObjectSize=PART + 2, **completed)
        head = bucket.call("head_object")
        assert (head["ContentLength"], head["Metadata"]) == (PART + 2, {"sj-commit": "x"})

    def test_copied_range(self, bucket: Bucket) -> None:
        """A part can be a range of the source, both ends inclusive."""
        bucket.put(b"0123456789")
        upload = bucket.call("create_multipart_upload", "copy")["UploadId"]
        source = {"CopySource": {"Bucket": bucket.name, "Key": KEY}, "CopySourceRange": "bytes=2-5"}
        copied = bucket.call("upload_part_copy", "copy", UploadId=upload, PartNumber=1, **source)
        parts = {"Parts": [{"PartNumber": 1, "ETag": copied["CopyPartResult"]["ETag"]}]}
        bucket.call("complete_multipart_upload", "copy", UploadId=upload, MultipartUpload=parts)
        assert bucket.body("copy") == b"2345"

    def test_wrong_size(self, bucket: Bucket) -> None:
        """x-amz-mp-object-size that is not the sum of the parts is 400, and no object appears."""
        arguments = bucket.upload(b"12345")
        refused = bucket.refused("complete_multipart_upload", MpuObjectSize=4, **arguments)
        assert refused == (400, "InvalidRequest")
        assert bucket.refused("head_object") == (404, "404")
        bucket.call("complete_multipart_upload", MpuObjectSize=5, **arguments)

    def test_small_part(self, bucket: Bucket) -> None:
        """Every part but the last must have 5 MiB."""
        arguments = bucket.upload(b"a" * (PART - 1), b"b")
        assert bucket.refused("complete_multipart_upload", **arguments) == (400, "EntityTooSmall")

    def test_no_upload(self, bucket: Bucket) -> None:
        """An upload that was aborted, or never was, is 404 NoSuchUpload in every operation."""
        arguments = bucket.upload(b"x")
        bucket.call("abort_multipart_upload", UploadId=arguments["UploadId"])
        assert bucket.refused("complete_multipart_upload", **arguments) == (404, "NoSuchUpload")
        part: dict[str, Any] = {"UploadId": arguments["UploadId"], "PartNumber": 1}
        assert bucket.refused("upload_part", Body=b"x", **part) == (404, "NoSuchUpload")
        bucket.put()
        source: dict[str, Any] = {"CopySource": {"Bucket": bucket.name, "Key": KEY}}
        assert bucket.refused("upload_part_copy", **source, **part) == (404, "NoSuchUpload")


class TestMetadata:
    """S3 counts 2,048 bytes of user metadata, keys and values together."""

    FULL: Final = {"sj-writers": "x" * (2_048 - len("sj-writers"))}
    OVER: Final = {"sj-writers": "x" * (2_049 - len("sj-writers"))}

    def test_full(self, bucket: Bucket) -> None:
        """2,048 bytes fit and come back."""
        bucket.call("put_object", Body=b"", Metadata=self.FULL)
        assert bucket.call("head_object")["Metadata"] == self.FULL
        bucket.call("create_multipart_upload", Metadata=self.FULL)

    @pytest.mark.parametrize("operation", ["put_object", "create_multipart_upload"])
    def test_over(self, bucket: Bucket, operation: str) -> None:
        """One byte more is 400 MetadataTooLarge."""
        assert bucket.refused(operation, Metadata=self.OVER) == (400, "MetadataTooLarge")


@pytest.mark.parametrize(
    "key", [KEY, "a/b%2Fc", "%2E%2E/x", "日本/x", "a b+c~d", "a//b", "%E6%97%A5%E6%9C%AC/journal.jsonl"]
)
def test_keys(bucket: Bucket, key: str) -> None:
    """Keys with percent signs, slashes and other scripts are kept apart and listed as they are."""
    etag = bucket.put(key.encode(), key)
    assert bucket.body(key) == key.encode()
    assert [o["Key"] for o in bucket.client.list_objects_v2(Bucket=bucket.name)["Contents"]] == [key]
    assert bucket.refused("put_object", key, Body=b"", IfMatch=WRONG) == (412, "PreconditionFailed")
    source = {"CopySource": {"Bucket": bucket.name, "Key": key}, "CopySourceIfMatch": etag}
    bucket.call("copy_object", "copy", **source)
    assert bucket.body("copy") == key.encode()
