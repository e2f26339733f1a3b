"""Computes a stretch of the past again and holds it against what stands on the outputs; reads, never writes.

ranges   which checkpoint a range can be computed from
replay   the engine over the log, from there to the end of the range
outputs  what stands on the alerts and scores
compare  the two, record by record
"""
