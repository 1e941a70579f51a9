"""Size formulas of convolution and pooling layers: integers only, no torch."""
