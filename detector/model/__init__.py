"""The bundle and the one door to ONNX Runtime."""
