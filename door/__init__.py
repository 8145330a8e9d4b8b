"""Find how much to prune each layer of a neural network for a device."""
