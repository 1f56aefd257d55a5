"""cvkit: typed PyTorch training components for computer vision."""
