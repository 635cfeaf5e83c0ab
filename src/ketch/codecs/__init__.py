"""Codecs: one content type a file."""
