"""Brokers: one a file; only these import drivers."""
