"""A few images of every OOD class: finetuning and retrieval."""
