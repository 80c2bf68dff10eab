"""Export to ONNX and running exported models. No torch."""
