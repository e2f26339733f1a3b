"""Moves data between sources, engines, sinks and checkpoints; reads nothing out of it.

dataflow.py      a poll's way: source > engine > sinks > checkpoint if due
shards.py        which shards are ours: assigned, restored, revoked, fenced
checkpoints.py   when they are checkpointed, and how they rest while the store stalls
live.py          a source as the pipeline sees it, and one shard of it from its restore to its end
standby.py       memory that is kept ready for shards that are not ours now
"""

from detector.pipeline.dataflow import Pipeline
from detector.pipeline.live import Input, LiveShard

__all__ = ["Input", "LiveShard", "Pipeline"]
