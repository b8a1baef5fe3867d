"""Exact answers about binarized neural networks."""
