"""The k nearest texts of every image: FAISS, as the cache computes them, beside torch's top-k.

    python scripts/bench_neighbours.py --texts 1000,10000,100000 --images 2000

A is this program's function (FAISS, exact inner product), B a matrix product and torch.topk over blocks of
images. They take turns, A B A B. Says whether both find the same texts. Prints a table of medians, writes
JSON.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from bench_parts import listed, medians, parser_of, run, timed, whole, write_result
from cache.store.neighbours import nearest_texts

BLOCK = 1024


def by_torch(images: NDArray[np.float32], texts: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Return the k nearest texts of every image by torch, best first."""
    rows, unit = F.normalize(torch.from_numpy(images)), F.normalize(torch.from_numpy(texts))
    found = [(block @ unit.T).topk(k, dim=1).indices for block in rows.split(BLOCK)]
    return torch.cat(found).numpy()


def main() -> None:
    """Parse, measure, print."""
    parser = parser_of(__file__, __doc__, rounds=3)
    parser.add_argument("--texts", type=listed(whole(1)), default="1000,10000,100000")
    parser.add_argument("--images", type=whole(1), default=2000)
    parser.add_argument("--embed-dim", type=whole(1), default=768)
    parser.add_argument("--k", type=whole(1), default=256)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    images = rng.standard_normal((args.images, args.embed_dim), dtype=np.float32)
    result: dict[str, Any] = {}
    print(f"{'texts':>10}{'FAISS, s':>12}{'torch, s':>12}{'torch / FAISS':>16}{'same texts':>12}")
    for count in args.texts:
        texts = rng.standard_normal((count, args.embed_dim), dtype=np.float32)
        k, rounds = min(args.k, count), []
        for _ in range(args.rounds):
            faiss_s, (nearest, _) = timed(lambda texts=texts, k=k: nearest_texts(images, texts, k))
            torch_s, expected = timed(lambda texts=texts, k=k: by_torch(images, texts, k))
            rounds.append({"faiss": faiss_s, "torch": torch_s, "ratio": torch_s / faiss_s})
        same = float((np.sort(nearest, axis=1) == np.sort(expected, axis=1)).mean())
        found = medians(rounds)
        result[str(count)] = {"rounds": rounds, "same": same, **found}
        print(f"{count:10,}{found['faiss']:12.2f}{found['torch']:12.2f}{found['ratio']:16.2f}{same:12.2%}")
    write_result(args, result, torch.device("cpu"))


if __name__ == "__main__":
    run(main)
