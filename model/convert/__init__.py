"""Trained networks in the formats of other programs: safetensors and ONNX."""
