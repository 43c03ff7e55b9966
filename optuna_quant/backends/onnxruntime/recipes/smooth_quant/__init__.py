"""SmoothQuant: large channels of activations made smaller, and their weights larger."""
