"""Sources and a teacher -> a cache."""
