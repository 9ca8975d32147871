"""Bodies of small journals, so that a commit uploads without fetching first."""

from __future__ import annotations

from collections import OrderedDict


class BodyCache:
    """The bodies used last, bounded in bytes.

    Args:
        bound: bytes of bodies; one that is larger by itself is not kept.
    """

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._bodies: OrderedDict[str, tuple[str, bytes]] = OrderedDict()
        self.held = 0

    def get(self, key: str, version: str) -> bytes | None:
        """The body at exactly that version, if it is held."""
        found = self._bodies.get(key)
        if found is None or found[0] != version:
            return None
        self._bodies.move_to_end(key)
        return found[1]

    def put(self, key: str, version: str, body: bytes) -> None:
        """Hold a body in place of the key's older one; those used longest ago make room."""
        self.drop(key)
        if len(body) > self._bound:
            return
        self._bodies[key] = (version, body)
        self.held += len(body)
        while self.held > self._bound:
            _, (_, oldest) = self._bodies.popitem(last=False)
            self.held -= len(oldest)

    def drop(self, key: str) -> None:
        """Let a key's body go."""
        found = self._bodies.pop(key, None)
        if found is not None:
            self.held -= len(found[1])
