"""The lines that sandboxed code gets: they print entries, and never break the code."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from streamjournal.agents.markers import extract
from streamjournal.agents.preamble import preamble, with_preamble


def oldest_python() -> str:
    """The oldest Python from 3.8 on that is installed, by name or by pyenv; else this one."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    for minor in range(8, sys.version_info.minor):
        installed = sorted(str(path) for path in versions.glob(f"3.{minor}.*/bin/python"))
        for name in (f"python3.{minor}", *installed):
            try:
                done = subprocess.run([name, "-c", ""], capture_output=True, check=False)
            except OSError:
                continue
            if done.returncode == 0:
                return name
    return sys.executable


def run(code: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Code after the preamble, on the oldest Python."""
    return subprocess.run(
        [oldest_python(), *options, "-I", "-c", with_preamble(code)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_it_is_python_3_8() -> None:
    """Sandboxes have older Pythons than hosts."""
    ast.parse(preamble(), feature_version=(3, 8))


def test_it_prints_entries() -> None:
    """Between the program's own lines, with the nonce that it was given."""
    done = run('print("a"); journal("DATA_LOADED", rows=3, names=["x"]); print("b")')
    found = extract(done.stdout)
    assert found == ("a\nb\n", [{"event_type": "DATA_LOADED", "details": {"rows": 3, "names": ["x"]}}], [])
    assert "===JOURNAL_ENTRY:n1===" in preamble("n1")


@pytest.mark.parametrize(
    ("call", "shown"),
    [
        ('journal("E", event_type=1, x={1, 2})', '"event_type":1'),
        ('journal("E", x=object())', "<object object"),
        ('journal("E", x={(1, 2): 3})', "(1, 2): 3"),
        ('x = []; x.append(x); journal("E", x=x)', "[...]"),
        ('journal("E", x=float("nan"))', "NaN"),
        ('journal("E", x="===JOURNAL_END===\\n===JOURNAL_ENTRY===")', "===JOURNAL_END==="),
        ('journal("E", x="\\udc80")', "\\udc80"),
        ('journal("E", x=b"raw")', "raw"),
    ],
)
def test_any_value_becomes_an_entry(call: str, shown: str) -> None:
    """What is no JSON becomes text; no value ends a block or begins one."""
    done = run(f'{call}; print("after")')
    assert (done.returncode, done.stderr) == (0, "")
    found = extract(done.stdout)
    assert (found.output, found.malformed) == ("after\n", [])
    (entry,) = found.entries
    assert entry["event_type"] == "E"
    assert shown in json.dumps(entry["details"], separators=(",", ":"))


@pytest.mark.parametrize(
    "call",
    [
        'sys.stdout.close(); journal("E")',
        'sys.stdout = None; journal("E")',
        'journal("E", x=Bad())',
        "journal(Bad())",
        'sys.modules["json"] = None; journal("E")',
        'sys.setrecursionlimit(80); journal("E", x=deep)',
    ],
)
def test_nothing_breaks_the_code(call: str) -> None:
    """A stdout that is gone, a value whose repr raises, a json that is the program's own."""
    code = f"""
import sys
class Bad:
    def __repr__(self): raise RuntimeError
    __str__ = __repr__
deep = []
for _ in range(100): deep = [deep]
{call}
sys.stderr.write("went on")
"""
    done = run(code)
    assert (done.returncode, done.stderr) == (0, "went on")


def test_threads_do_not_mix_their_entries() -> None:
    """Each entry is one call; hundreds from many threads come whole."""
    code = """
import threading
def work(n):
    for i in range(100):
        journal("E", n=n, i=i, text="x" * 300)
threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    found = extract(run(code).stdout)
    assert (found.output, found.malformed, len(found.entries)) == ("", [], 800)


def test_code_keeps_what_must_come_first() -> None:
    """`from __future__` imports stay before the preamble; broken code says itself what is wrong with it."""
    done = run('"""Docs."""\nfrom __future__ import annotations\njournal("E")\nprint("x")')
    assert (done.stderr, extract(done.stdout).output) == ("", "x\n")
    assert run("if:").returncode == 1
    assert with_preamble("").startswith("def journal(")
