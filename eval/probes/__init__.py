"""Linear probe and k-NN on frozen features, their metrics and results."""
