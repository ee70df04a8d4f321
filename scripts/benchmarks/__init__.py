"""Written by `python scripts/bench.py --write` from scripts/benchmarks/*.json: a change by hand is lost.

Each table is of a benchmark that anyone can run, `python scripts/bench.py NAME`: its ways take turns (A B A
B), numbers are medians of turns and ratios medians of the turns' ratios, and `--keep MACHINE` puts its
result in here. The photos are 96 to 191 pictures of supermarket goods of 348 px and more; the teachers'
weights are random, which costs the same.

All of it was measured on the CPU. Not yet run on a GPU: stage 1 in bf16 and fp16 beside the bare forward
and beside the chip's peak (`cache_features --peak-tflops P --compile`), pinned transfers, images kept on
the device (`input`), a training step beside plain (`train_step`), `train.compile`, FAISS on CUDA, several
GPUs. A GPU that is there is used.
"""
