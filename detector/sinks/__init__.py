"""Edges that alerts, scores and dead letters go to."""
