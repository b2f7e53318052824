"""Batch normalization: the layers, readable and drop-in for torch.nn."""
