"""What is done with caches that are there: verify, repair, convert, import."""
