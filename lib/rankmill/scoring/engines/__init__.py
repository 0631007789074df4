"""One module per way to run a forward pass. An engine takes micro-batches of token ids and gives logits."""
