"""TensorRT engines, of TensorRT and of TensorRT for RTX alike."""
