"""The pins fit pyproject.toml; a pin that was forgotten would show on somebody else's machine only."""

from __future__ import annotations

import re
import tomllib
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PINS = ROOT / "scripts" / "requirements"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
GROUPS: dict[str, list[str]] = PROJECT["dependency-groups"]
BASE: list[str] = PROJECT["project"]["dependencies"]


def pins(file: str) -> dict[str, str]:
    """Name -> version."""
    found = {}
    for line in (PINS / file).read_text().splitlines():
        if not line.startswith("#"):
            requirement = Requirement(line)
            (specifier,) = requirement.specifier
            assert specifier.operator == "=="
            found[canonicalize_name(requirement.name)] = specifier.version
    return found


@pytest.mark.parametrize(
    ("file", "wanted"),
    [
        ("dev.txt", [*BASE, *chain(*EXTRAS.values(), *GROUPS.values())]),
        ("worker.txt", [*BASE, *EXTRAS["aws"], *EXTRAS["metrics"]]),
    ],
)
def test_pins_fit(file: str, wanted: list[str]) -> None:
    """Everything that pyproject.toml asks for is pinned, to a version that it allows."""
    pinned = pins(file)
    for requirement in map(Requirement, wanted):
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not pinned; run scripts/pin"
        assert requirement.specifier.contains(version), (
            f"{requirement} is pinned to {version}; run scripts/pin"
        )


def test_worker_runs_what_is_tested() -> None:
    """The worker's image gets the versions that the tests run with."""
    assert pins("worker.txt").items() <= pins("dev.txt").items()


def test_pins_name_no_place() -> None:
    """No pin says where packages come from: that is each machine's own setting."""
    place = re.compile(r"https?://|file:|--(extra-)?index|--find-links|^/", re.MULTILINE)
    for file in PINS.iterdir():
        assert not place.search(file.read_text()), file
