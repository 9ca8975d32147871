"""The settings, and where each came from; and variables that look like settings and are none."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Final

from streamjournal.admin.doctor.check import Check, failed, ok, warning
from streamjournal.core.errors import StreamjournalError
from streamjournal.core.settings import PREFIX, Settings, variable_given, variable_of

_OTHERS: Final = frozenset({"STREAMJOURNAL_BENCH_DATA"})  # read by the scripts


def check_settings(
    settings: Settings, environ: Mapping[str, str], arguments: Collection[str] = ()
) -> list[Check]:
    """One line for each setting that was given, one for the others, and one for each that is unknown.

    Args:
        arguments: names of the settings that were given as arguments.
    """
    checks = []
    defaults = []
    for name in settings.__struct_fields__:
        value = getattr(settings, name)
        source = "argument" if name in arguments else variable_given(name, environ)
        if source is None:
            defaults.append(name)
        else:
            checks.append(ok(f"setting {name}", f"{value} ({source})", value=value, source=source))
    facts = {name: getattr(settings, name) for name in defaults}
    checks.append(ok("other settings", f"{len(defaults)} at their defaults", **facts))
    if not settings.embedded and "bucket" in defaults:
        checks.append(_bucket(settings, environ))
    return checks + _unknown(environ)


def _bucket(settings: Settings, environ: Mapping[str, str]) -> Check:
    try:
        bucket = settings.bucket_name(environ)
    except StreamjournalError as problem:
        found, _, remedy = str(problem).partition(": ")
        return failed("setting bucket", found, remedy)
    source = "AWS_ACCOUNT_ID" if environ.get("AWS_ACCOUNT_ID") else "the account in the stream's ARN"
    return ok("setting bucket", f"{bucket} (by {source})", value=bucket, source=source)


def _unknown(environ: Mapping[str, str]) -> list[Check]:
    known = {variable_of(name) for name in Settings.__struct_fields__}
    unknown = (name for name in sorted(environ) if name.startswith(PREFIX) and name not in known | _OTHERS)
    return [
        warning(f"variable {name}", "is no setting, and has no effect", _advice(name)) for name in unknown
    ]


def _advice(variable: str) -> str:
    near = get_close_matches(variable.removeprefix(PREFIX).lower(), Settings.__struct_fields__, 1)
    return f"did you mean {variable_of(near[0])}?" if near else "unset it"
