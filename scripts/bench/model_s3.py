"""S3 as far as the journals' store asks it, in memory and without time, so that hours are counted in
seconds. It keeps the conditions of conditional writes, and only the newest version of an object.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Self

from anyio.lowlevel import checkpoint
from botocore.exceptions import ClientError

from scripts.bench.tally import Tally


class _Object(NamedTuple):
    body: bytes
    etag: str
    metadata: dict[str, str]


class _Stream:
    """A body, as aiobotocore gives it."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await checkpoint()

    async def read(self) -> bytes:
        await checkpoint()
        return self._body


class ModelS3:
    """Both the client that `S3Store` opens, and what opens it. Operations take the SDK's parameters."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._objects: dict[str, _Object] = {}
        self._uploads: dict[str, tuple[dict[str, str], dict[int, bytes]]] = {}
        self._numbers = 0

    async def get(self) -> ModelS3:
        """The open client."""
        return self

    async def aclose(self) -> None:
        """Nothing is open."""

    async def head_bucket(self, **parameters: Any) -> dict[str, Any]:
        """HeadBucket, as the SDK's client has it."""
        await self._begin("HeadBucket", parameters)
        return {}

    async def head_object(self, **parameters: Any) -> dict[str, Any]:
        """HeadObject, as the SDK's client has it."""
        await self._begin("HeadObject", parameters)
        found = self._find("HeadObject", parameters)
        return {"ContentLength": len(found.body), "ETag": found.etag, "Metadata": found.metadata}

    async def get_object(self, **parameters: Any) -> dict[str, Any]:
        """GetObject, as the SDK's client has it."""
        await self._begin("GetObject", parameters)
        found = self._find("GetObject", parameters)
        body = found.body
        if parameters.get("Range") == "bytes=-1":
            body = body[-1:]
        elif "Range" in parameters:
            raise NotImplementedError(f"the model knows no range {parameters['Range']}")
        size = len(found.body)
        return {"ContentLength": size, "ETag": found.etag, "Metadata": found.metadata, "Body": _Stream(body)}

    async def put_object(self, **parameters: Any) -> dict[str, Any]:
        """PutObject, as the SDK's client has it."""
        await self._begin("PutObject", parameters)
        self._check(parameters)
        return self._write(parameters["Key"], bytes(parameters["Body"]), parameters["Metadata"])

    async def create_multipart_upload(self, **parameters: Any) -> dict[str, Any]:
        """CreateMultipartUpload, as the SDK's client has it."""
        await self._begin("CreateMultipartUpload", parameters)
        upload = self._draw()
        self._uploads[upload] = (parameters["Metadata"], {})
        return {"UploadId": upload}

    async def upload_part_copy(self, **parameters: Any) -> dict[str, Any]:
        """UploadPartCopy, as the SDK's client has it."""
        await self._begin("UploadPartCopy", parameters)
        found = self._find("UploadPartCopy", {"Key": parameters["CopySource"]["Key"]})
        first, _, last = parameters["CopySourceRange"].removeprefix("bytes=").partition("-")
        self._add_part(parameters, found.body[int(first) : int(last) + 1])
        return {"CopyPartResult": {"ETag": self._draw()}}

    async def upload_part(self, **parameters: Any) -> dict[str, Any]:
        """UploadPart, as the SDK's client has it."""
        await self._begin("UploadPart", parameters)
        self._add_part(parameters, bytes(parameters["Body"]))
        return {"ETag": self._draw()}

    async def complete_multipart_upload(self, **parameters: Any) -> dict[str, Any]:
        """CompleteMultipartUpload, as the SDK's client has it."""
        await self._begin("CompleteMultipartUpload", parameters)
        self._check(parameters)
        metadata, parts = self._uploads.pop(parameters["UploadId"])
        return self._write(parameters["Key"], b"".join(parts[n] for n in sorted(parts)), metadata)

    async def _begin(self, operation: str, parameters: dict[str, Any]) -> None:
        self._tally.note("s3", operation, parameters)
        await checkpoint()

    def _find(self, operation: str, parameters: dict[str, Any]) -> _Object:
        found = self._objects.get(parameters["Key"])
        if found is None:
            raise _error("404", 404, operation)
        if parameters.get("IfMatch", found.etag) != found.etag:
            raise _error("PreconditionFailed", 412, operation)
        return found

    def _check(self, parameters: dict[str, Any]) -> None:
        found = self._objects.get(parameters["Key"])
        if "IfNoneMatch" in parameters and found is not None:
            raise _error("PreconditionFailed", 412, "PutObject")
        if "IfMatch" in parameters and (found is None or found.etag != parameters["IfMatch"]):
            raise _error("PreconditionFailed", 412, "PutObject")

    def _write(self, key: str, body: bytes, metadata: dict[str, str]) -> dict[str, Any]:
        etag = self._draw()
        self._objects[key] = _Object(body, etag, metadata)
        return {"ETag": etag}

    def _add_part(self, parameters: dict[str, Any], body: bytes) -> None:
        self._uploads[parameters["UploadId"]][1][parameters["PartNumber"]] = body

    def _draw(self) -> str:
        self._numbers += 1
        return f'"{self._numbers:032x}"'


def _error(code: str, status: int, operation: str) -> ClientError:
    answer = {"Error": {"Code": code, "Message": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, operation)
