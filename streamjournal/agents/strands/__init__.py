"""Strands agents: hooks that journal what an agent does, and tools that give it its own journal.

    from streamjournal.agents.strands import JournalHooks, journal_tools

    agent = Agent(hooks=[JournalHooks(journal)], tools=[*my_tools, *journal_tools(journal)])

Needs the extra `strands`. Nothing but this package imports strands.
"""

from streamjournal.agents.strands.hooks import JournalHooks
from streamjournal.agents.strands.instrument import Instrumentation, instrument
from streamjournal.agents.strands.tools import journal_tools

__all__ = ["Instrumentation", "JournalHooks", "instrument", "journal_tools"]
