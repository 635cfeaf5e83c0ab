"""Middleware: one behaviour a file."""
