"""Leases: which worker reads a shard, and up to where everything in it is durable."""
