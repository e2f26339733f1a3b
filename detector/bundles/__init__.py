"""The bundle in the box: trained on the demo's plant and on generated streams, for any number of channels.

Made by `tidewarden train -c configs/train/default.yaml`; what it was trained on stands in its metadata.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def default_path() -> Path:
    """Where the shipped bundle lies."""
    return Path(str(files(__name__) / "default.onnx"))
