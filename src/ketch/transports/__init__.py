"""Transports: one a file."""
