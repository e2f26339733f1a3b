"""Tidewarden: streaming anomaly detection with recurrent memory per stream."""

__version__ = "0.1.0"
