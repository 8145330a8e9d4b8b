"""What runs a network: OpenVINO, torch, ONNX Runtime, or a program of the user."""
