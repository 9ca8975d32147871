"""Admin: what an operator does: create what must exist, recover, look after."""
