"""Makes data before stage 1: splits, descriptions, captions."""
