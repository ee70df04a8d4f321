"""Written by `python scripts/bench.py --write` from scripts/benchmarks/*.json: a change by hand is lost.

Each table is of a benchmark that anyone can run, `python scripts/bench.py NAME`: its ways take turns (A B A
B), numbers are medians of turns and ratios medians of the turns' ratios, and `--keep MACHINE` puts its
result in here. The photos are 96 to 191 pictures of supermarket goods of 348 px and more; the teachers'
weights are random, which costs the same.

What is of machine H200 ran on a GPU (stage 1 in bf16, a training step); all else was measured on the CPU.
Not yet run on a GPU: stage 1 with several processes, images kept on the device (`input`), `train.compile`,
FAISS on CUDA, several GPUs. A GPU that is there is used.
"""
