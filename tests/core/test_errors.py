"""The tree of errors."""

from __future__ import annotations

import inspect
import re

import pytest

from streamjournal.core import errors


def drawn_tree() -> dict[str, str | None]:
    """Class -> parent, as the module's docstring draws it."""
    parents: dict[str, str | None] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"(?P<indent>[│├└─ ]*)(?P<name>\w+Error)\b", line)
        if found:
            depth = len(found["indent"]) // 4
            parents[found["name"]] = path[depth - 1] if depth else None
            path[depth:] = [found["name"]]
    return parents


def defined_tree() -> dict[str, str | None]:
    """Class -> parent, as the classes are."""
    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass) if c.__module__ == errors.__name__]
    ours = {c.__name__ for c in classes}
    return {c.__name__: next((b.__name__ for b in c.__bases__ if b.__name__ in ours), None) for c in classes}


def test_docstring_draws_the_tree_as_it_is() -> None:
    """A reader who trusts the picture catches the right class."""
    assert drawn_tree() == defined_tree()


def test_one_root() -> None:
    """Everything that is raised on purpose can be caught by one name."""
    assert [name for name, parent in defined_tree().items() if parent is None] == ["StreamjournalError"]


def test_value_errors_are_drawn_as_such() -> None:
    """Errors of arguments are ValueErrors too, and the picture says which."""
    drawn = set(re.findall(r"(\w+Error) +\(ValueError\)", errors.__doc__ or ""))
    defined = {name for name in defined_tree() if issubclass(getattr(errors, name), ValueError)}
    assert drawn == defined


@pytest.mark.parametrize(
    ("error", "fields", "text"),
    [
        (
            errors.InvalidEntryError("level", "is too long"),
            {"field": "level", "problem": "is too long"},
            "level is too long",
        ),
        (errors.SettingsError("shards", "0 is too few"), {"setting": "shards"}, "shards: 0 is too few"),
        (errors.BufferFullError(90, 100), {"buffered": 90, "bound": 100}, "90 of 100 bytes"),
        (errors.LeaseLostError("shardId-1", "w2"), {"owner": "w2", "lease_key": "shardId-1"}, "held by w2"),
        (errors.LeaseLostError("shardId-1", None), {"owner": None}, "held by nobody"),
        (errors.EntryRefusedError("too large"), {"dead_letter": None}, "refused the entry: too large"),
        (
            errors.EntryRefusedError("x", "dead-letters/a"),
            {"dead_letter": "dead-letters/a"},
            "dead-letters/a",
        ),
        (errors.RecordsTrimmedError("shardId-1", "17"), {"shard_id": "shardId-1", "sequence": "17"}, "17"),
        (errors.RecordsTrimmedError("shardId-1", None), {"sequence": None}, "its start"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_carry_fields_and_say_them(
    error: errors.StreamjournalError, fields: dict[str, object], text: str
) -> None:
    """Code reads the fields, people read the text."""
    assert fields.items() <= vars(error).items()
    assert text in str(error)
