"""Floats of 16 bits: ops that compute in them, and weights that are stored in them."""
