"""The embedded default: a small data set drawn by our own code, and a small CLIP that knows it."""
