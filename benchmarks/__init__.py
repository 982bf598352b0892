"""Benchmarks: scripts that print a table and write `results/<name>-<device>-<date>.json`; README.md has the method."""
