"""Networks for other programs: safetensors and ONNX."""
