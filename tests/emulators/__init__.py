"""Servers that speak AWS APIs on this machine, for the tests, the demo and the benchmarks."""
