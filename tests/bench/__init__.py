"""Benchmarks: each compares two ways in one run and prints a table and, last, one line of JSON."""
