"""The tests, a mirror of streamjournal/."""
