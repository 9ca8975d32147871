"""`mcp`: journals for models, over the Model Context Protocol."""

from __future__ import annotations

import signal
from typing import Annotated

import typer


def mcp(
    allow_write: Annotated[
        bool, typer.Option("--allow-write", help="Offer a tool that writes entries, too.")
    ] = False,
) -> None:
    """Serve journals to an MCP client on stdin and stdout, until it closes them."""
    from functools import partial

    import anyio

    from streamjournal.core.errors import NotConfiguredError
    from streamjournal.core.settings import load

    settings = load()
    try:
        from streamjournal.views.mcp.server import serve
    except ModuleNotFoundError as problem:
        if (problem.name or "").partition(".")[0] not in ("mcp", "mcp_types", "pydantic"):
            raise
        raise NotConfiguredError(
            f"the MCP server needs a package that is not installed ({problem.name}): "
            "pip install 'streamjournal[mcp]'"
        ) from None
    # stdin is read by a thread that cannot be interrupted; what was accepted is in the spool.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    anyio.run(partial(serve, settings, allow_write=allow_write))
