"""Agents: who speaks to the journal, each integration a leaf with its dependency as an extra."""
