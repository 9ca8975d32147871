"""Turning any Python value into JSON, predictably, without ever raising.

`emit` takes whatever a tool has at hand. What msgspec encodes by itself (datetime as RFC 3339,
Decimal and UUID as text, bytes as base64, dataclasses and Structs as objects, sets as arrays, NaN
as null) goes that way. This is the slow path for the rest:

===========================  ==========================================
value                        becomes
===========================  ==========================================
numpy scalar, array          `.tolist()`, or text (longdouble)
key that is no text          text: `"(1, 2)"`, `"None"`, `"1.5"`
lone surrogate in text       U+FFFD, the replacement character
object inside itself         `"<cycle>"`
nesting deeper than 64       `"<too deep>"`
integer beyond 64 bits       its digits as text
exception                    `"ValueError: its text"`
path                         its text
anything else                its `repr`, at most 1,000 characters
===========================  ==========================================
"""

from __future__ import annotations

import dataclasses
import os
from collections import UserString
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

_MAX_DEPTH = 64
_MAX_REPR = 1_000
_ATOMS = (range, UserString)  # iterable, but better shown as they are: a range may be endless in practice
_plain = msgspec.json.Encoder()


def to_jsonable(value: Any) -> Any:
    """`value` as dicts, lists, text, numbers, booleans and None; never raises."""
    return _convert(value, (), 0)


def is_encodable(value: Any) -> bool:
    """Whether msgspec encodes `value` by itself."""
    try:
        _plain.encode(value)
    except Exception:  # noqa: BLE001  # the caller's own code runs: a tzinfo, say
        return False
    return True


def encode_details(details: Any) -> msgspec.Raw:
    """`details` as JSON bytes; what is no mapping becomes `{"value": …}`. Never raises."""
    if type(details) is dict:
        try:
            return msgspec.Raw(_plain.encode(details))
        except Exception:  # noqa: BLE001  # see is_encodable; the slow way finds out what it is
            return msgspec.Raw(_plain.encode(_as_mapping(details)))
    return msgspec.Raw(_plain.encode(_as_mapping(details)))


def encode_value(value: Any) -> bytes:
    """Any value as JSON bytes. Never raises."""
    try:
        return _plain.encode(value)
    except Exception:  # noqa: BLE001  # see is_encodable; the slow way finds out what it is
        return _plain.encode(to_jsonable(value))


def _as_mapping(details: Any) -> dict[str, Any]:
    converted = to_jsonable(details)
    if not _is_mapping(details) or not isinstance(converted, dict):
        converted = {"value": converted}
    return converted


def _convert(value: Any, above: tuple[int, ...], depth: int) -> Any:
    try:
        if value is None or value is True or value is False:
            return value
        if isinstance(value, str):
            return _text(value)
        if isinstance(value, int):
            number = int.__index__(value)  # not int(value): a subclass may convert as it likes
            return number if -(2**63) <= number < 2**64 else _digits(number)
        if isinstance(value, float):
            return float.__float__(value)
        if depth > _MAX_DEPTH:
            return "<too deep>"
        if id(value) in above:
            return "<cycle>"
        return _convert_object(value, (*above, id(value)), depth + 1)
    except Exception as problem:  # noqa: BLE001  # the caller's own code runs: properties, iterators, even __class__
        return f"<{type(value).__name__} that cannot be converted: {type(problem).__name__}>"


def _convert_object(value: Any, inside: tuple[int, ...], depth: int) -> Any:
    if isinstance(value, Mapping):
        # a list first: another thread may put something into a dict while its values are converted
        return {_key(k): _convert(v, inside, depth) for k, v in list(value.items())}
    if isinstance(value, list | tuple | set | frozenset):
        return [_convert(v, inside, depth) for v in value]
    if isinstance(value, BaseException):
        return _text(f"{type(value).__name__}: {value}")
    if isinstance(value, os.PathLike):
        return _text(os.fsdecode(os.fspath(value)))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            f.name: _convert(getattr(value, f.name, None), inside, depth) for f in dataclasses.fields(value)
        }
    if hasattr(value, "dtype") and hasattr(value, "tolist"):  # numpy scalars and arrays
        plain = value.tolist()
        return _text(str(value)) if type(plain) is type(value) else _convert(plain, inside, depth)
    if isinstance(value, msgspec.Struct):
        return _convert(msgspec.structs.asdict(value), inside, depth)
    try:
        return msgspec.json.decode(_plain.encode(value))
    except (TypeError, ValueError, RecursionError, UnicodeError, OverflowError):
        if isinstance(value, Iterable) and hasattr(value, "__len__") and not isinstance(value, _ATOMS):
            return [_convert(v, inside, depth) for v in value]
        return _text(repr(value)[:_MAX_REPR])


def _key(key: Any) -> str:
    if isinstance(key, str):
        return _text(key)
    try:
        return _text(str(key)[:_MAX_REPR])
    except Exception:  # noqa: BLE001  # __str__ is the caller's own code
        return f"<{type(key).__name__}>"


def _is_mapping(value: Any) -> bool:
    try:
        return isinstance(value, Mapping)
    except Exception:  # noqa: BLE001  # a proxy's __class__ is the caller's own code
        return False


def _text(text: str) -> str:
    text = str.__str__(text)  # not str(text): an enum would give its name, and msgspec gives its value
    if _is_utf8(text):
        return text
    return "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _digits(number: int) -> str:
    try:
        return str(number)
    except ValueError:  # beyond sys.set_int_max_str_digits
        return hex(number)
