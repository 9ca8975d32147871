"""Read: the journal and what is not in it yet, as one; once, live, or as a list of sessions."""
