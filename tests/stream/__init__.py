"""Tests of the stream stage."""
