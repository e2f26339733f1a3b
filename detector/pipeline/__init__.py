"""Moves data between sources, engines, sinks and checkpoints; reads nothing out of it.

    dataflow.py   a poll's way: source > engine > sinks > checkpoint if due
    shards.py     which shards are ours: assigned, restored, checkpointed, paused, revoked, fenced
    standby.py    memory that is kept ready for shards that are not ours now
"""

from detector.pipeline.dataflow import Input, LiveShard, Pipeline

__all__ = ["Input", "LiveShard", "Pipeline"]
