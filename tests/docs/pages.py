"""The documentation's pages, their code blocks and their links, as the tests look at them.

A block in a fence of ``python`` or ``sh`` is run, unless the line before the fence says otherwise in an
HTML comment, which readers do not see: `<!-- not run: why -->`, `<!-- run on AWS -->`. A fence of
``text`` right after a Python block is what that block prints; `…` in it stands for anything.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Run by hand: they take minutes, and measure the machine.
SLOW = {ROOT / "docs" / "benchmarks.md"}

_FENCE = re.compile(
    r"(?:^<!-- (?P<note>[^\n]*) -->\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
_LINK = re.compile(r"\]\((?P<target>[^()\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


class Block(NamedTuple):
    """A fenced block.

    Args:
        note: of the comment before it, or empty.
        end: where in the page it ends.
    """

    page: Path
    line: int
    kind: str
    text: str
    note: str
    end: int

    @property
    def name(self) -> str:
        """`docs/cli.md:12`."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page."""
    text = page.read_text()
    return [
        Block(page, text[: m.start()].count("\n") + 1, m["kind"], m["text"], m["note"] or "", m.end())
        for m in _FENCE.finditer(text)
    ]


def all_blocks(kind: str, note: str = "") -> list[Block]:
    """The blocks of a kind, with exactly that note, in all pages that are run."""
    found = [block for page in PAGES if page not in SLOW for block in blocks(page)]
    return [block for block in found if block.kind == kind and block.note == note]


def printed_by(block: Block) -> str | None:
    """The text block right after a block, or None."""
    text = block.page.read_text()
    after = [
        b for b in blocks(block.page) if b.kind == "text" and text[block.end : b.end].startswith("\n```text")
    ]
    return after[0].text if after else None


def without_blocks(page: Path) -> str:
    """A page's prose."""
    return _FENCE.sub("", page.read_text())


def links(page: Path) -> list[str]:
    """Every link's target."""
    return [m["target"] for m in _LINK.finditer(without_blocks(page))]


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in _HEADING.findall(without_blocks(page)))
    return {heading.strip().replace(" ", "-") for heading in kept}


def rows(text: str) -> list[list[str]]:
    """The cells of every table row, header and rule left out."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [
        row
        for i, row in enumerate(cells)
        if not _is_rule(row) and not (i + 1 < len(cells) and _is_rule(cells[i + 1]))
    ]


def _is_rule(row: list[str]) -> bool:
    return all(re.fullmatch(r":?-+:?", cell) for cell in row)


def section(page: Path, heading: str) -> str:
    """What stands under a heading of the second level."""
    found = re.search(
        rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", page.read_text(), re.MULTILINE | re.DOTALL
    )
    assert found is not None, f"{page.name} has no section {heading!r}"
    return found[1]
