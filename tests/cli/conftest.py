"""Runs commands in this process: starting one takes longer than most of them."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import NamedTuple

import pytest

from streamjournal.cli.main import main


class Outcome(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture
def command(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """`command(*arguments, stdin=b"")`: the console script's main, as a shell would call it."""

    def run(*arguments: str, stdin: bytes = b"") -> Outcome:
        monkeypatch.setattr(sys, "argv", ["streamjournal", *arguments])
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as ended:
            main()
        sys.stdout.flush()
        out, err = capfdbinary.readouterr()
        code = ended.value.code
        return Outcome(code if isinstance(code, int) else 0, out.decode(), err.decode())

    logger = logging.getLogger("streamjournal.emit")
    level = logger.level
    yield run
    logger.setLevel(level)
