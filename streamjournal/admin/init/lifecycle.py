"""The lifecycle rules that `init` gives a bucket, beside whatever rules it has.

Ours are known by their ids and replaced in place; others stay. All are bound to a prefix, because a
bucket may hold more than journals:

==============================  ==============  ===================================================
id                              prefix          does
==============================  ==============  ===================================================
streamjournal-old-versions      the journals'   old versions expire a day after they were replaced,
                                                or go to Glacier after the days that were asked for
streamjournal-uploads           the journals'   uploads that were never completed end after a day
streamjournal-scratch           `scratch/`      what a probe left behind goes after a day, with its
                                                versions and delete markers
==============================  ==============  ===================================================

An object under 128 KB does not move to Glacier unless the bucket says otherwise (S3 would charge more
for moving it than for keeping it), so small archived versions stay where they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from streamjournal.store.names import SCRATCH

Rule = dict[str, Any]

OLD_VERSIONS: Final = "streamjournal-old-versions"
UPLOADS: Final = "streamjournal-uploads"
PROBES: Final = "streamjournal-scratch"


def rules_for(prefix: str, *, archive_after: int | None) -> list[Rule]:
    """Our rules.

    Args:
        prefix: what the journals' names start with.
        archive_after: days until an old version goes to Glacier; None: it expires after one.
    """
    old: Rule = {"NoncurrentVersionExpiration": {"NoncurrentDays": 1}}
    if archive_after is not None:
        move = {"NoncurrentDays": archive_after, "StorageClass": "GLACIER"}
        old = {"NoncurrentVersionTransitions": [move]}
    return [
        _rule(OLD_VERSIONS, prefix, old),
        _rule(UPLOADS, prefix, {"AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1}}),
        _rule(
            PROBES,
            SCRATCH,
            {"Expiration": {"Days": 1}, "NoncurrentVersionExpiration": {"NoncurrentDays": 1}},
        ),
    ]


def archived_after(rules: Sequence[Rule]) -> int | None:
    """After how many days our rule among these archives old versions; None if it does not."""
    for rule in rules:
        if rule.get("ID") == OLD_VERSIONS:
            for move in rule.get("NoncurrentVersionTransitions", ()):
                return int(move["NoncurrentDays"])
    return None


def merge(existing: Sequence[Rule], ours: Sequence[Rule]) -> list[Rule]:
    """The rules that the bucket is to have: the others' in their order, and ours."""
    ids = {rule["ID"] for rule in ours}
    return [_with_filter(rule) for rule in existing if rule.get("ID") not in ids] + list(ours)


def is_in_place(existing: Sequence[Rule], ours: Sequence[Rule]) -> bool:
    """Whether the bucket has our rules as they should be."""
    there = {rule.get("ID"): _normal(rule) for rule in existing}
    return all(there.get(rule["ID"]) == _normal(rule) for rule in ours)


def _rule(rule_id: str, prefix: str, action: Rule) -> Rule:
    return {"ID": rule_id, "Status": "Enabled", "Filter": {"Prefix": prefix}} | action


def _with_filter(rule: Rule) -> Rule:
    """A rule of the old form in the new one, since S3 refuses a configuration that mixes them."""
    if "Prefix" not in rule:
        return rule
    return {name: value for name, value in rule.items() if name != "Prefix"} | {
        "Filter": {"Prefix": rule["Prefix"]}
    }


def _normal(rule: Rule) -> Rule:
    """A rule as it compares: an empty prefix is none, whichever way the service writes it."""
    prefix = (rule.get("Filter") or {}).get("Prefix") or rule.get("Prefix") or ""
    return {name: value for name, value in rule.items() if name not in ("Filter", "Prefix")} | {
        "Filter": {"Prefix": prefix}
    }
