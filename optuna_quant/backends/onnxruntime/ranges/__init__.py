"""From histograms to scale and zero point."""
