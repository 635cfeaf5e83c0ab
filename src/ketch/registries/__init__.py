"""Registries: one a file."""
