"""Streams of our own making, so that a detector for any channels has seen more than one plant."""
