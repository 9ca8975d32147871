"""What a command imports: the AWS SDK takes a second to import, and an embedded journal needs none of it."""

from __future__ import annotations

import subprocess
import sys

import pytest

_AWS = ("aiobotocore", "botocore", "boto3", "aiohttp")
_SHOW = """
import sys
from streamjournal.cli.main import main
sys.argv = ["streamjournal", *sys.argv[1:]]
try:
    main()
except SystemExit as ended:
    print(ended.code or 0, *sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""


def imported_by(*arguments: str) -> set[str]:
    """The top-level packages that a command has imported by its end."""
    done = subprocess.run(
        [sys.executable, "-c", _SHOW, *arguments], capture_output=True, text=True, timeout=60, check=True
    )
    code, *packages = done.stderr.splitlines()[-1].split()
    assert code == "0", done.stderr
    return set(packages)


@pytest.mark.parametrize(
    "arguments",
    [("read", "s"), ("read", "s", "-o", "json"), ("write", "s", "NOTE"), ("sessions", "-o", "json")],
)
def test_an_embedded_command_imports_no_aws_package_and_nothing_it_does_not_print_with(
    arguments: tuple[str, ...],
) -> None:
    """No AWS package, no pydantic, and rich only for a table."""
    imported_by("write", "s", "NOTE")
    packages = imported_by(*arguments)
    assert packages.isdisjoint(_AWS)
    assert packages.isdisjoint({"pydantic", "pydantic_settings", "rich", "structlog", "trio"})
    assert "streamjournal" in packages


def test_a_table_is_what_rich_is_for() -> None:
    """The counterpart: it does show up where it is used, so the test above can fail."""
    imported_by("write", "s", "NOTE")
    packages = imported_by("sessions")
    assert "rich" in packages
    assert packages.isdisjoint(_AWS)
