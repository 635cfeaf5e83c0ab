"""Selectors: one way of choosing an instance a file."""
