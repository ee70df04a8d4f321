"""Batches for a student, from the cache and the data folder."""
