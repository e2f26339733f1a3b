"""Measures detectors on labelled series by the rules of the field."""
