"""Edges that samples come from."""
