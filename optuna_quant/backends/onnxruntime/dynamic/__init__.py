"""Dynamic quantization: operators that find their ranges as they run."""
