"""Proofs."""


def prove(detector, bundle):
    pass
