"""Reports of finished runs, from their folders alone: no cache, no data set, no teacher, no GPU.

``collect`` reads run folders; ``groups`` puts runs that differ in the seed together; ``statistics`` are
tests of their differences; ``tables``, ``charts``, ``curves`` and ``pictures`` make the parts; ``page`` puts
them into one HTML file, with the main table beside it as Markdown and CSV.
"""
