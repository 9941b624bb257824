"""Handwriting: where it comes from."""
