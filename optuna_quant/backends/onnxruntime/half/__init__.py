"""Numbers of 16-bit floats: ops that compute on them, and weights that are stored in them."""
