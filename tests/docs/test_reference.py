"""The reference pages agree with the code: settings, commands, options, public names."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import click
import pytest
import typer

import streamjournal
from streamjournal.cli.main import app
from streamjournal.core.settings import Settings, variable_of
from tests.docs.pages import PAGES, ROOT, anchors, links, rows, section, without_blocks

CONFIGURATION = ROOT / "docs" / "configuration.md"
CLI = ROOT / "docs" / "cli.md"
PYTHON = ROOT / "docs" / "python.md"
COMMANDS: dict[str, click.Command] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
VARIABLES = [row for row in rows(CONFIGURATION.read_text()) if row[0].startswith("`STREAMJOURNAL_")]
_OPTION = re.compile(r"`(--?[a-zA-Z][a-z-]*)[` ]")


def test_every_setting_is_documented() -> None:
    """The configuration's table has each setting once, in the order of the code, and nothing else."""
    assert [row[0].strip("`") for row in VARIABLES] == [variable_of(n) for n in Settings.__struct_fields__]


@pytest.mark.parametrize("name", Settings.__struct_fields__)
def test_defaults_are_documented(name: str) -> None:
    """The table gives the default of each setting."""
    (row,) = [row for row in VARIABLES if row[0] == f"`{variable_of(name)}`"]
    default = getattr(Settings(), name)
    if default is None:
        assert row[3] == "not set"
    else:
        text = str(default).lower() if isinstance(default, bool) else default
        assert row[3].split(" (")[0] == f"`{text}`"
        for number, unit in re.findall(r"\((\d+) (MiB)\)", row[3]):
            assert default == int(number) * {"MiB": 2**20}[unit]


def test_the_default_flush_intervals_are_documented() -> None:
    """What stands for a flush interval that is not set is what the code takes."""
    (row,) = [row for row in VARIABLES if row[0] == "`STREAMJOURNAL_FLUSH_INTERVAL`"]
    on_aws, embedded = Settings(stream="s").flush_seconds, Settings().flush_seconds
    assert f"{on_aws:.0f} on AWS, {embedded:.0f} embedded" in row[1]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_documented(name: str) -> None:
    """A command has a section, which tells of all of its options, and of no other."""
    options = [p for p in COMMANDS[name].params if isinstance(p, click.Option | typer.core.TyperOption)]
    known = {text for option in options for text in (*option.opts, *option.secondary_opts)} - {"-h", "--help"}
    told = {text for row in rows(section(CLI, name)) for text in _OPTION.findall(row[0])}
    assert told == known


def test_every_command_is_documented() -> None:
    """Each command has a section of its own, and each section a command; the README names all."""
    assert re.findall(r"^## (.+)$", CLI.read_text(), re.MULTILINE) == list(COMMANDS)
    named = {
        row[0].strip("`").split()[0] for row in rows(section(ROOT / "README.md", "From the command line"))
    }
    assert named == set(COMMANDS)


def test_public_names() -> None:
    """`__all__` names each thing that the package's module imports for its users once, and no other."""
    public = streamjournal.__all__
    assert len(public) == len(set(public))
    for name in public:
        assert hasattr(streamjournal, name), name
    tree = ast.parse(Path(streamjournal.__file__).read_text())
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    imported = {alias.name for node in imports for alias in node.names}
    assert imported | {"__version__"} == set(public)


def test_public_names_are_documented() -> None:
    """The table of names has exactly the public names; so no name is public by accident."""
    table = rows(PYTHON.read_text().partition("\n## ")[0])
    told = {name for row in table for name in re.findall(r"`(\w+)`", row[0])}
    assert told == set(streamjournal.__all__)


def test_public_names_say_where_they_are_from() -> None:
    """Examples import public names only, from the package itself; integrations from their own module."""
    for page in PAGES:
        for names in re.findall(r"^from streamjournal import (.+)$", page.read_text(), re.MULTILINE):
            assert {name.strip() for name in names.split(",")} <= set(streamjournal.__all__), page
        assert not re.findall(
            r"^(?:from|import) streamjournal\.(?!agents\.\w+ )", page.read_text(), re.MULTILINE
        ), page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link names a file of the checkout, and a heading of it if it names one."""
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_named_in_the_text_exist(page: Path) -> None:
    """A test, script or module that a page names is there."""
    named = re.findall(
        r"`((?:tests|scripts|consumers|core|emit|stream|store|read|ingest)/[\w/.]+)`", without_blocks(page)
    )
    for name in named:
        assert (ROOT / name).exists() or (ROOT / "streamjournal" / name).exists(), name


def test_decisions_are_listed() -> None:
    """The list of decisions names every page, and the numbers have no gap."""
    folder = ROOT / "docs" / "decisions"
    pages = sorted(path.name for path in folder.glob("0*.md"))
    assert [name for name in links(folder / "README.md") if name.startswith("0")] == pages
    assert [int(name[:4]) for name in pages] == list(range(1, len(pages) + 1))


@pytest.mark.parametrize(
    "page", sorted((ROOT / "docs" / "decisions").glob("0*.md")), ids=lambda page: page.name
)
def test_a_decision_has_its_parts(page: Path) -> None:
    """A decision says its context, what was decided, what it is not for, and what it costs."""
    assert re.findall(r"^## (.+)$", page.read_text(), re.MULTILINE) == [
        "Context",
        "Decision",
        "Non-goals",
        "Cost",
    ]
    assert page.read_text().startswith(f"# {page.name[:4]}: ")
