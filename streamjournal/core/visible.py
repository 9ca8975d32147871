"""Text from entries, as it may be shown: nothing in it that a terminal obeys or a reader does not see.

Control characters drive terminals; bidirectional ones show a text in another order than it has
(https://trojansource.codes); tag characters and variation selectors carry text that only a model reads.
"""

from __future__ import annotations

import re
from typing import Final

# Letters and marks to Unicode, so `isprintable` lets them through, and yet they show nothing.
_UNSEEN: Final = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u3164\ufe00-\ufe0e\uffa0\U000e0100-\U000e01ef]")


def visible(text: str) -> str:
    r"""Characters that are not seen as the escapes that JSON has for them: `\u202e`.

    So a line of JSON stays one, with the same meaning.
    """
    if text.isprintable() and (text.isascii() or not _UNSEEN.search(text)):
        return text
    return "".join(c if c.isprintable() and not _UNSEEN.match(c) else _escape(c) for c in text)


def _escape(character: str) -> str:
    code = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{code[i : i + 4]}" for i in range(0, len(code), 4))
