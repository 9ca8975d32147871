"""Who listens: what is made of journals, each view a leaf with its dependencies as an extra."""
