"""Emit: from a call in an agent to a record on the stream, without waiting and without loss."""
