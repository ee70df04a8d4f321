"""Stage 2: train small students from a cache of the teacher's embeddings, with no teacher in memory.

The way of the data, one file a step: ``config`` holds the whole of a run; ``data`` joins images to
cache rows by key and makes ``batch`` after batch; ``augment`` draws per image; ``students`` turn
images into embeddings; ``objective`` adds up the terms of ``losses``; ``train`` is the loop,
``checkpoint`` and ``runlog`` what it leaves behind; ``evaluate`` judges student and teacher alike.
"""
