"""The lines that give sandboxed code a `journal(event_type, **details)`.

They are put before the code, run in the sandbox's Python (3.8 or later, nothing installed), and print
blocks as `markers` describes them. They never raise into the code: an entry that cannot be printed is
left out, as a line of it could be on any stdout that was closed.
"""

from __future__ import annotations

import ast
from typing import Final

from streamjournal.agents.markers import markers

_PREAMBLE: Final = '''\
def journal(event_type, /, **details):
    """Print an entry for the journal of the session that runs this code."""
    try:
        import json
        import sys

        try:
            text = json.dumps({"event_type": event_type, "details": details}, default=repr)
        except Exception:  # odd keys, or an object inside itself: better as text than not at all
            text = json.dumps({"event_type": str(event_type), "details": {"value": repr(details)}})
        text = text.replace("===", "=\\\\u003d=")  # so that no value looks like a marker
        # one call, so that threads do not mix
        sys.stdout.write("BEGIN\\n" + text + "\\nEND\\n")
        sys.stdout.flush()
    except Exception:  # a closed stdout, say: it must not end the program
        pass
'''


def preamble(nonce: str | None = None) -> str:
    """Python source that defines `journal(event_type, **details)`.

    Args:
        nonce: what the markers hold; give the parser the same one.

    Raises:
        ValueError: the nonce is not 1 to 64 letters, digits, `_` or `-`.
    """
    begin, end = markers(nonce)
    return _PREAMBLE.replace("BEGIN", begin).replace("END", end)


def with_preamble(code: str, nonce: str | None = None) -> str:
    """Python source with the preamble in it: before the code, but after its `from __future__` imports.

    Raises:
        ValueError: the nonce is not 1 to 64 letters, digits, `_` or `-`.
    """
    lines = code.split("\n")
    before = _future_lines(code)
    return "\n".join([*lines[:before], preamble(nonce) + lines[before], *lines[before + 1 :]])


def _future_lines(code: str) -> int:
    """How many lines must stay first."""
    try:
        body = ast.parse(code).body
    except (SyntaxError, ValueError):  # newer than this Python, or a notebook's: it will say so itself
        return 0
    ends = [
        one.end_lineno or 0 for one in body if isinstance(one, ast.ImportFrom) and one.module == "__future__"
    ]
    return max(ends, default=0)
