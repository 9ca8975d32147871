"""Strands agents: hooks that journal what an agent does, and tools that give it its own journal.

    from streamjournal.agents.strands import JournalHooks, journal_tools

    agent = Agent(hooks=[JournalHooks(journal)], tools=[*my_tools, *journal_tools(journal)])

Needs the extra `strands`. Nothing but this package imports strands.
"""

try:
    import strands as _strands  # noqa: F401  # so that a missing package is told of, and nothing else
except ModuleNotFoundError as problem:
    if problem.name != "strands":
        raise
    raise ImportError(
        "streamjournal.agents.strands needs Strands, which is not installed: "
        "pip install 'streamjournal[strands]'",
        name="strands",
    ) from None

from streamjournal.agents.strands.hooks import JournalHooks
from streamjournal.agents.strands.instrument import Instrumentation, instrument
from streamjournal.agents.strands.tools import journal_tools

__all__ = ["Instrumentation", "JournalHooks", "instrument", "journal_tools"]
