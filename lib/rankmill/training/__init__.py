"""Training a cross-encoder: losses, lists, loop, checkpoints, mining of training lists."""
