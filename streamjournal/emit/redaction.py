"""Taking secrets out of an entry's details, before they reach the spool.

Two kinds are known: by the *name* they are kept under (`password`, `apiKey`, `Authorization`, …), and by
the *form* of a value (AWS access keys, bearer tokens, private keys, JSON web tokens), wherever it stands
in a text. The envelope (session, event type, tool, level, span) is never touched: it is what the journal
works by.

Nearly no entry has any, so what is done for each is only to look: a walk over the names, each of which is
judged once, and a search in the encoded line for the letters that those forms cannot do without. What
looks suspicious is gone through with care.

Forms: AWS's identifiers (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html),
RFC 6750 (bearer tokens), RFC 7468 (PEM), RFC 7519 (JSON web tokens).
"""

from __future__ import annotations

import datetime as dt
import decimal
import re
import uuid
from collections.abc import Callable, Mapping
from itertools import islice, pairwise
from typing import Any, Final

import msgspec

from streamjournal.core.jsonable import encode_details, encode_value

REDACTED: Final = "<redacted>"
MARK: Final = "$redacted"  # the key under which details say what was taken out, and where

UserRedaction = Callable[[dict[str, Any]], Mapping[str, Any]]

_WORDS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_SECRET_WORDS: Final = frozenset(
    {
        "apikey", "authorization", "cookie", "cookies", "credential", "credentials", "passphrase", "passwd",
        "password", "passwords", "pwd", "secret", "secrets", "token",
    }
)  # fmt: skip
_SECRET_PAIRS: Final = frozenset({("api", "key"), ("access", "key"), ("private", "key")})
_MAY_BE_COUNTS: Final = frozenset({"token"})  # `token_count: 53` is no secret, `token: "x"` is one
_MAX_JUDGED: Final = 10_000  # names whose judgement is remembered
_ATOMS: Final = frozenset(
    {
        str, int, float, bool, type(None), bytes, dt.datetime, dt.date, dt.time, dt.timedelta,
        decimal.Decimal, uuid.UUID,
    }
)  # fmt: skip

# One search for each first character that is rare: a search for either of two stops ten times as often.
_AWS: Final = re.compile(rb"A[KS]IA[A-Z2-7]{16}").search
_JWT: Final = re.compile(rb"yJ[\w-]{10}").search
_BEARER_OR_PEM: Final = re.compile(rb"B(?:earer [\w.~+/-]{8}|EGIN [A-Z ]{0,40}PRIVATE KEY)").search

_FORMS: Final = re.compile(
    r"\b(?P<aws_key>A[KS]IA[A-Z2-7]{16})\b"
    r"|(?<![\w-])(?P<jwt>eyJ[\w-]{8,4096}\.eyJ[\w-]{8,16384}\.[\w-]*)"
    r"|\bBearer (?P<bearer>[\w.~+/-]{8,}=*)"
    r"|(?P<private_key>-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----"
    r".*?(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|\Z))",
    re.DOTALL,
)


def is_secret_name(name: str) -> bool:
    """Whether what is kept under a name is a secret; by whole words, so `tokens_sent` is none.

    Words are told apart by what is no letter, and by camel case.
    """
    words = _words_of(name)
    if not _SECRET_WORDS.isdisjoint(words):
        return True
    return any(pair in _SECRET_PAIRS for pair in pairwise(words))


def _words_of(name: str) -> list[str]:
    return [word.lower() for word in _WORDS.findall(name)]


class _Judged(dict[Any, bool]):
    """Names, and whether they are secret ones; what is not in it is judged."""

    def __missing__(self, name: Any) -> bool:
        if len(self) >= _MAX_JUDGED:
            self.clear()
        verdict = self[name] = is_secret_name(name if isinstance(name, str) else str(name))
        return verdict


class Redaction:
    """Takes secrets out of details.

    Args:
        also: the user's own function; it gets each entry's details after this class's work, as a dict
            of JSON values, and gives what is to be journaled. If it raises, they are left out.
    """

    def __init__(self, also: UserRedaction | None = None) -> None:
        self._also = also
        self._judged = _Judged()

    def suspects(self, details: dict[Any, Any]) -> bool:
        """Whether a name in details, or a value that is not plain, calls for a closer look. Never raises."""
        try:
            return self._also is not None or self._suspects_dict(details)
        except Exception:  # noqa: BLE001  # deeper than Python goes, changed by a thread, odd names: look closer
            return True

    def _suspects_dict(self, details: dict[Any, Any]) -> bool:
        judged = self._judged
        for name, value in details.items():
            if judged[name]:
                return True
            kind = type(value)
            if kind not in _ATOMS and self._suspects_value(value, kind):
                return True
        return False

    def _suspects_value(self, value: Any, kind: type) -> bool:
        if kind is dict:
            return self._suspects_dict(value)
        if kind is list or kind is tuple:
            for item in value:
                kind = type(item)
                if kind not in _ATOMS and self._suspects_value(item, kind):
                    return True
            return False
        if kind is msgspec.Raw:
            value = msgspec.json.decode(value)
            return type(value) not in _ATOMS and self._suspects_value(value, type(value))
        return True  # an object; what it becomes as JSON is looked at

    @staticmethod
    def suspects_text(line: bytes) -> bool:
        """Whether a line of JSON has the letters that a secret's form cannot do without."""
        return bool(_AWS(line) or _JWT(line) or _BEARER_OR_PEM(line))

    def encode(self, details: Any) -> msgspec.Raw:
        """Details as JSON, without secrets; what was taken out is told under MARK. Never raises."""
        raw = encode_details(details)
        if type(details) is dict and not (self.suspects(details) or self.suspects_text(bytes(raw))):
            return raw
        return self.clean(raw)

    def clean(self, details: msgspec.Raw) -> msgspec.Raw:
        """A JSON object without secrets."""
        found: list[str] = []
        try:
            plain = self._clean(msgspec.json.decode(details), "", found)
        except Exception as problem:  # noqa: BLE001  # too deep, or raw JSON that is none: it must not pass
            return encode_details({MARK: [f"all: it cannot be looked through ({type(problem).__name__})"]})
        if found:
            before = plain.get(MARK)
            plain[MARK] = [*(before if isinstance(before, list) else []), *found]
        elif self._also is None:
            return details
        if self._also is None:
            return encode_details(plain)
        try:
            return encode_details(dict(self._also(plain)))
        except Exception as problem:  # noqa: BLE001  # it is the user's code; what it was to hide must not pass
            return encode_details({MARK: [f"all: the redaction function raised {type(problem).__name__}"]})

    def _clean(self, value: Any, path: str, found: list[str]) -> Any:
        if isinstance(value, dict):
            return {
                clean_text(name): self._clean_named(name, item, path, found) for name, item in value.items()
            }
        if isinstance(value, list):
            return [self._clean(item, f"{path}[{i}]", found) for i, item in enumerate(value)]
        if isinstance(value, str):
            return _FORMS.sub(lambda match: _take_out(match, path, found), value)
        return value

    def _clean_named(self, name: str, value: Any, path: str, found: list[str]) -> Any:
        shown = clean_text(name)
        where = f"{path}.{shown}" if path else shown
        if shown is not name and shown != name:
            found.append(f"{where}: name")
        if name == MARK or value is None or isinstance(value, bool) or not self._judged[name]:
            return self._clean(value, where, found)
        if isinstance(value, int | float) and not _SECRET_WORDS.difference(_MAY_BE_COUNTS).intersection(
            _words_of(name)
        ):
            return value
        found.append(where)
        return REDACTED


def clean_text(text: str) -> str:
    """A text without secrets of a known form."""
    return _FORMS.sub(lambda match: _take_out(match, "", []), text)


_CLEANER: Final = Redaction()


def bounded_json(value: Any, limit: int) -> msgspec.Raw:
    """Any value as JSON; one of more than `limit` bytes as `{"$cut": its bytes, "start": "…"}`.

    What is cut is text from then on, in which names cannot be told from values. So secrets are taken out
    of it before. A long sequence is not gone through further than its beginning. Never raises.
    """
    beginning = _beginning_of(value, limit)
    encoded = encode_value(beginning)
    if len(encoded) <= limit and beginning is value:
        return msgspec.Raw(encoded)
    size = len(encoded) if beginning is value else f"{len(value)} items"
    clean = msgspec.json.decode(_CLEANER.clean(msgspec.Raw(b'{"value":' + encoded + b"}")))
    text = encode_value(clean.get("value", clean))
    start = text[: max(0, limit - 64)].decode("utf-8", "ignore")
    return msgspec.Raw(encode_value({"$cut": size, "start": start}))


def _beginning_of(value: Any, limit: int) -> Any:
    """The value, or so much of a long one that the bound is reached: each item is two bytes at least."""
    try:
        if isinstance(value, str | bytes) or not hasattr(value, "__len__") or len(value) <= limit:
            return value
        if isinstance(value, dict):
            return dict(islice(value.items(), limit))
        if isinstance(value, list | tuple | set | frozenset):
            return list(islice(value, limit))
        return repr(value)[:limit]  # an array, a data set: going through it may take long, or ask a server
    except Exception as problem:  # noqa: BLE001  # the value's own code runs
        return f"<{type(value).__name__} that cannot be shown: {type(problem).__name__}>"


def _take_out(match: re.Match[str], path: str, found: list[str]) -> str:
    kind = match.lastgroup or ""
    found.append(f"{path}: {kind}")
    return match[0].replace(match[kind], f"<redacted {kind}>")
