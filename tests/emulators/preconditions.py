"""What S3 refuses and moto accepts, as a WSGI wrapper around moto.

Checked against the objects that moto holds, under the server's lock, so between the check and the
write nothing comes. Sources: the S3 API reference of each operation, section "Errors".

===========================================  ==========================================  =====
request                                      refused when                                as
===========================================  ==========================================  =====
CompleteMultipartUpload, If-Match            no such object                              404
CompleteMultipartUpload, If-Match            the object has another ETag                 412
CompleteMultipartUpload, If-None-Match: *    the object exists                           412
CompleteMultipartUpload, x-amz-mp-object-size  the parts add up to something else        400
UploadPartCopy, CopyObject                   the source does not exist                   404
... x-amz-copy-source-if-match               the source has another ETag                 412
PutObject, CreateMultipartUpload, CopyObject the user metadata is over 2,048 bytes       400
UploadPart, UploadPartCopy, Complete         no such upload (moto: a 500)                404
===========================================  ==========================================  =====

moto itself checks If-Match and If-None-Match on PutObject, GetObject and DeleteObject, and the
5 MiB minimum of a part; the tests beside this file make sure of that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.s3.exceptions import MissingBucket
from moto.s3.models import FakeKey, FakeMultipart, S3Backend, s3_backends

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIApplication

MAX_METADATA_BYTES = 2_048  # keys without their prefix, and values
_METADATA = "HTTP_X_AMZ_META_"
_NAMESPACE = "{http://s3.amazonaws.com/doc/2006-03-01/}"


class Refusal(NamedTuple):
    """An S3 error answer."""

    status: str
    code: str
    message: str
    details: str = ""

    def xml(self, resource: str) -> bytes:
        """The body, in S3's format."""
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<Error><Code>{self.code}</Code><Message>{escape(self.message)}</Message>{self.details}"
            f"<Resource>{escape(resource)}</Resource><RequestId>0000000000000000</RequestId></Error>"
        ).encode()


def _precondition_failed(condition: str) -> Refusal:
    return Refusal(
        "412 Precondition Failed",
        "PreconditionFailed",
        "At least one of the pre-conditions you specified did not hold",
        f"<Condition>{condition}</Condition>",
    )


NO_SUCH_KEY = Refusal("404 Not Found", "NoSuchKey", "The specified key does not exist.")
NO_SUCH_UPLOAD = Refusal(
    "404 Not Found",
    "NoSuchUpload",
    "The specified upload does not exist. The upload ID may be invalid, or the upload may have been "
    "aborted or completed.",
)
METADATA_TOO_LARGE = Refusal(
    "400 Bad Request",
    "MetadataTooLarge",
    "Your metadata headers exceed the maximum allowed metadata size",
    f"<MaxSizeAllowed>{MAX_METADATA_BYTES}</MaxSizeAllowed>",
)
WRONG_SIZE = Refusal(
    "400 Bad Request",
    "InvalidRequest",
    "The provided 'x-amz-mp-object-size' header value does not match what was computed.",
)


class Request:
    """An S3 request to one object, as far as the checks look at it."""

    def __init__(self, environ: dict[str, Any], bucket: str, key: str) -> None:
        self.method: str = environ["REQUEST_METHOD"]
        self.bucket = bucket
        self.key = key
        self.query = parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True)
        self._environ = environ

    @classmethod
    def of(cls, environ: dict[str, Any]) -> Request | None:
        """The request, or None if it is none that could be refused here."""
        if environ["REQUEST_METHOD"] not in ("PUT", "POST") or "HTTP_X_AMZ_TARGET" in environ:
            return None  # DynamoDB and Kinesis name their operation in that header
        path = urlsplit(environ["RAW_URI"]).path  # PATH_INFO has lost which slashes were encoded
        bucket, _, key = unquote(path).lstrip("/").partition("/")
        return cls(environ, bucket, key) if key else None

    def header(self, name: str) -> str | None:
        """A request header, None if it was not sent."""
        value: str | None = self._environ.get("HTTP_" + name.upper().replace("-", "_"))
        return value

    @property
    def upload_id(self) -> str | None:
        """Of the multipart upload, if the request belongs to one."""
        return next(iter(self.query.get("uploadId", ())), None)

    @property
    def begins_object(self) -> bool:
        """Whether the request brings an object's metadata."""
        return "uploads" in self.query or (self.method == "PUT" and not self.query.keys() - {"x-id"})

    def metadata_bytes(self) -> int:
        """Bytes of user metadata, as S3 counts them."""
        return sum(
            len(name) - len(_METADATA) + len(value.encode("latin-1"))
            for name, value in self._environ.items()
            if name.startswith(_METADATA)
        )

    def body(self) -> bytes:
        """The body, which stays readable for moto."""
        stream = self._environ["wsgi.input"]
        data: bytes = stream.read()
        stream.seek(0)
        return data


class Preconditions:
    """A WSGI application that refuses what S3 would, and hands the rest to moto."""

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        request = Request.of(environ)
        refusal = request and _refusal(request)
        if not refusal:
            return self._app(environ, start_response)
        start_response(refusal.status, [("Content-Type", "application/xml")])
        return [refusal.xml(environ["PATH_INFO"])]


def _refusal(request: Request) -> Refusal | None:
    try:
        return _metadata(request) or _copy(request) or _upload(request) or _complete(request)
    except MissingBucket:
        return None  # moto says that well


def _metadata(request: Request) -> Refusal | None:
    if request.begins_object and request.metadata_bytes() > MAX_METADATA_BYTES:
        return METADATA_TOO_LARGE
    return None


def _copy(request: Request) -> Refusal | None:
    copied = request.header("x-amz-copy-source")
    if copied is None:
        return None
    source = urlsplit(copied)
    bucket, _, key = unquote(source.path).lstrip("/").partition("/")
    version = parse_qs(source.query).get("versionId", [None])[0]
    existing = _backend().get_object(bucket, key, version_id=version)
    if existing is None:
        return NO_SUCH_KEY
    wanted = request.header("x-amz-copy-source-if-match")
    if wanted is not None and not _same_etag(wanted, existing):
        return _precondition_failed("x-amz-copy-source-If-Match")
    return None


def _upload(request: Request) -> Refusal | None:
    if request.upload_id is None or _multipart(request) is not None:
        return None
    existing = _backend().get_object(request.bucket, request.key)
    done = existing is not None and existing.multipart and existing.multipart.id == request.upload_id
    return None if request.method == "POST" and done else NO_SUCH_UPLOAD  # completing twice is harmless


def _complete(request: Request) -> Refusal | None:
    if request.method != "POST" or request.upload_id is None:
        return None
    existing = _backend().get_object(request.bucket, request.key)
    if (wanted := request.header("If-Match")) is not None:
        if existing is None:
            return NO_SUCH_KEY
        if not _same_etag(wanted, existing):
            return _precondition_failed("If-Match")
    if request.header("If-None-Match") == "*" and existing is not None:
        return _precondition_failed("If-None-Match")
    size = request.header("x-amz-mp-object-size")
    upload = _multipart(request)
    if size is not None and upload is not None and int(size) != _size(upload, request.body()):
        return WRONG_SIZE
    return None


def _size(upload: FakeMultipart, body: bytes) -> int:
    """Bytes of the parts that a CompleteMultipartUpload names; unknown ones are moto's to refuse."""
    numbers = [
        int(number.text or 0)
        for part in ET.fromstring(body)
        for number in (part.find(f"{_NAMESPACE}PartNumber"), part.find("PartNumber"))
        if number is not None
    ]
    return sum(upload.parts[n].contentsize for n in numbers if n in upload.parts)


def _multipart(request: Request) -> FakeMultipart | None:
    uploads: dict[str, FakeMultipart] = _backend().get_bucket(request.bucket).multiparts
    return uploads.get(request.upload_id or "")


def _same_etag(wanted: str, existing: FakeKey) -> bool:
    return wanted.strip('"') == existing.etag.strip('"')


def _backend() -> S3Backend:
    return s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
