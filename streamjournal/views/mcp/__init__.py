"""Journals for models, over the Model Context Protocol: an MCP server on stdio (`streamjournal mcp`).

What stands in a journal was written by programs that were fed by strangers: web pages, files, sandboxes.
So it reaches the model framed as data, in bounded pieces, and nothing is written unless it was allowed.
"""
