"""One pass over the calibration data, from which every range is computed."""
