"""The student: its trunk, its heads, its prompts."""
