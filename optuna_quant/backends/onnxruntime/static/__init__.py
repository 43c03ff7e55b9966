"""Static quantization: where Q/DQ pairs go, and writing them."""
