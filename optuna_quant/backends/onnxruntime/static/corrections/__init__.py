"""What makes up for the rounding of weights."""
