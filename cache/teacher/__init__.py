"""The teacher, and the only importers of open_clip."""
