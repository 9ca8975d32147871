"""Ingest: the worker, which moves entries from the stream to their journals."""
