"""What is installed, told without importing it."""

from __future__ import annotations

from importlib import metadata


def onnxruntime() -> str:
    """The version of ONNX Runtime, of whichever flavour; "none" without one."""
    for distribution in ("onnxruntime", "onnxruntime-gpu"):
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return "none"
