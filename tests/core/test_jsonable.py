"""Any Python value becomes JSON, predictably, and nothing raises."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import json
import math
import sys
import uuid
from pathlib import PurePosixPath
from typing import Any
from unittest.mock import MagicMock

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamjournal.core.jsonable import encode_details, to_jsonable

texts = st.text(st.characters(exclude_categories=())) | st.text()  # lone surrogates included
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**200), 2**200),
    st.floats(),
    st.complex_numbers(),
    texts,
    st.binary(),
    st.decimals(),
    st.fractions(),
    st.datetimes(timezones=st.none() | st.timezones()),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.uuids(),
    st.binary().map(bytearray),
    st.from_type(type),
    st.functions(),
    st.sampled_from([np.float32(1.5), np.int8(-3), np.bool_(True), np.datetime64("2026"), np.longdouble(2)]),
)
keys = st.one_of(
    texts, st.integers(), st.floats(), st.booleans(), st.none(), st.binary(), st.tuples(st.integers())
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner),
        st.tuples(inner, inner),
        st.dictionaries(keys, inner),
        st.lists(inner).map(collections.deque),
        st.dictionaries(texts, inner).map(collections.UserDict),
    ),
    max_leaves=20,
)


def is_json(value: object) -> bool:
    """Whether a value is made of JSON's own types only, with text for keys."""
    if isinstance(value, dict):
        return all(type(k) is str and is_json(v) for k, v in value.items())
    if isinstance(value, list):
        return all(is_json(v) for v in value)
    return value is None or type(value) in (str, int, float, bool)


@settings(max_examples=300)
@given(values)
def test_every_value_becomes_json_that_encodes(value: Any) -> None:
    """Only JSON's types come out, and what comes out is valid UTF-8 JSON for any reader."""
    converted = to_jsonable(value)
    assert is_json(converted)
    encoded = msgspec.json.encode(converted)
    assert is_json(msgspec.json.decode(encoded))
    assert is_json(json.loads(encoded.decode("utf-8")))


@given(values)
def test_details_are_always_an_object(details: Any) -> None:
    """What is no mapping stands under `value`."""
    encoded = msgspec.json.decode(bytes(encode_details(details)))
    assert isinstance(encoded, dict)
    if not isinstance(details, collections.abc.Mapping):
        assert set(encoded) == {"value"}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(json_values)
def test_json_stays_as_it_is(value: Any) -> None:
    """A value that is JSON already is not touched."""
    assert to_jsonable(value) == value


class Colour(enum.Enum):
    """An enum whose values encode."""

    RED = "red"


class Mode(str, enum.Enum):  # noqa: UP042  # not a StrEnum: its str() is "Mode.FAST"
    """An enum that is text as well."""

    FAST = "fast"


class Level(enum.IntEnum):
    """An enum that is a number as well."""

    HIGH = 3


@dataclasses.dataclass
class Point:
    """A dataclass with a value of every trouble."""

    x: Any
    y: Any = None


class Record(msgspec.Struct):
    """A Struct."""

    name: str
    inner: Any = None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (dt.datetime(2026, 11, 22, 13, 12, 1, tzinfo=dt.UTC), "2026-11-22T13:12:01Z"),
        (dt.date(2026, 11, 22), "2026-11-22"),
        (decimal.Decimal("1.10"), "1.10"),
        (uuid.UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        (b"\x00\xff", "AP8="),
        (Colour.RED, "red"),
        (Mode.FAST, "fast"),
        (Level.HIGH, 3),
        (2**64, "18446744073709551616"),
        (-(2**63) - 1, "-9223372036854775809"),
        (2**64 - 1, 2**64 - 1),
        ("ok \ud800 then", "ok \ufffd then"),
        ("🙂", "🙂"),
        ({(1, 2): 1, None: 2, 1.5: 3, True: 4}, {"(1, 2)": 1, "None": 2, "1.5": 3, "True": 4}),
        (ValueError("boom"), "ValueError: boom"),
        (PurePosixPath("/tmp/x"), "/tmp/x"),
        (Point(np.int64(3), {1}), {"x": 3, "y": [1]}),
        (Record("a", Point(1)), {"name": "a", "inner": {"x": 1, "y": None}}),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (np.float32(0.5), 0.5),
        (np.longdouble("1.5"), "1.5"),
        (collections.deque([1, "a"]), [1, "a"]),
        (1 + 2j, "(1+2j)"),
        (range(10**12), "range(0, 1000000000000)"),
        (int, "<class 'int'>"),
        (10 ** (sys.get_int_max_str_digits() + 1), hex(10 ** (sys.get_int_max_str_digits() + 1))),
    ],
    ids=lambda value: type(value).__name__,
)
def test_documented_conversions(value: Any, expected: Any) -> None:
    """The module's table, line by line."""
    assert to_jsonable(value) == expected
    assert to_jsonable([value]) == [expected]


def test_not_a_number_is_null_in_the_line() -> None:
    """JSON has neither NaN nor infinity."""
    encoded = encode_details({"nan": math.nan, "inf": -math.inf, "numpy": np.array([np.nan])})
    assert bytes(encoded) == b'{"nan":null,"inf":null,"numpy":[null]}'


def test_long_repr_is_bounded() -> None:
    """An object that shows itself at length takes a thousand characters at most."""

    class Chatty:
        def __repr__(self) -> str:
            return "x" * 5_000

    assert to_jsonable(Chatty()) == "x" * 1_000


def test_cycles_end() -> None:
    """An object inside itself is named, and one that merely occurs twice is written twice."""
    loop: dict[str, Any] = {"a": [1]}
    loop["self"] = loop
    loop["list"] = [loop["a"], loop["a"]]
    assert to_jsonable(loop) == {"a": [1], "self": "<cycle>", "list": [[1], [1]]}


def test_deep_nesting_ends() -> None:
    """Nesting beyond the bound is cut with a word, far above the interpreter's own limit."""
    nested: Any = 0
    for _ in range(100_000):
        nested = [nested]
    depth = 0
    converted = to_jsonable(nested)
    while isinstance(converted, list):
        (converted,) = converted
        depth += 1
    assert (depth, converted) == (65, "<too deep>")
    while isinstance(nested, list):  # taken apart here, as freeing it in one go recurses
        (nested,) = nested


class Hostile:
    """Every special method that a conversion may meet raises."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __iter__(self) -> Any:
        raise RuntimeError("iter")

    def __len__(self) -> int:
        raise RuntimeError("len")

    def __repr__(self) -> str:
        raise RuntimeError("repr")

    __str__ = __repr__


class Unbound:
    """A lazy proxy outside of its context, as web frameworks have them."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise RuntimeError("outside of the request")


class BadText(str):
    """Text whose own conversion raises."""

    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError("str")


class BadInt(int):
    """A number whose own conversions raise."""

    def __int__(self) -> int:
        raise RuntimeError("int")

    __index__ = __int__


class BadFloat(float):
    """A number whose own conversion raises."""

    def __float__(self) -> float:
        raise RuntimeError("float")


class BadMapping(collections.UserDict[str, int]):
    """A mapping that cannot be gone through."""

    def items(self) -> Any:
        raise RuntimeError("items")


@pytest.mark.parametrize("make", [Hostile, Unbound, BadMapping, MagicMock, lambda: memoryview(b"abcd")[::2]])
def test_objects_that_raise_are_named_instead(make: Any) -> None:
    """The caller's own code may fail anywhere; the entry says of what type the value was."""
    for value in (make(), [make()], {"k": make()}, Point(make())):
        assert is_json(to_jsonable(value))
        assert isinstance(msgspec.json.decode(bytes(encode_details(value))), dict)
    value = make()
    assert type(value).__name__ in to_jsonable(value)


def test_subclasses_of_plain_types_give_their_plain_value() -> None:
    """Whatever a subclass overrides, its text or number is what counts."""
    assert to_jsonable([BadText("a"), BadInt(3), BadFloat(1.5)]) == ["a", 3, 1.5]


def test_key_that_cannot_be_shown_is_named() -> None:
    """A key whose `__str__` raises stands as its type."""

    class Key:
        def __repr__(self) -> str:
            raise RuntimeError("repr")

    assert to_jsonable({Key(): 1}) == {"<Key>": 1}
