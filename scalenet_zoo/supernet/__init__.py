"""Weight-sharing networks: elastic layers, the super-supernet, samplers, training, batch-norm re-estimation."""
