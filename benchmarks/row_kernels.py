"""Attention of short rows on a processor: PyTorch's fused kernel beside plain products.

    python -m benchmarks.row_kernels

prints how many times as long the kernel takes, for rectangles as token trees have them.  It is where the
limit in ``finetune.adapters.hf.row_attention`` comes from.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch.nn.functional import scaled_dot_product_attention

from finetune.adapters.hf.row_attention import attend_by_products

# Heads of queries, heads of keys, size of a head: the shipped model, Qwen2.5-0.5B, and one without groups.
HEADS = ((6, 2, 32), (14, 2, 64), (8, 8, 64))
# Rows, queries and keys of a row: texts, labels, long texts, one large tree.
SHAPES = (
    (64, 41, 62),
    (64, 6, 68),
    (16, 66, 88),
    (30, 66, 206),
    (4, 66, 600),
    (1, 512, 512),
    (1, 1500, 1500),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20, help="the median of so many is taken")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    print("| heads | rows x queries x keys | 1,000 scores | kernel ms | products ms | kernel : products |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for heads, kinds, size in HEADS:
        for rows, queries, keys in SHAPES:
            query = torch.randn(rows, heads, queries, size)
            key, value = torch.randn(2, rows, kinds, keys, size)
            mask = torch.zeros(rows, 1, queries, keys)

            def kernel(query=query, key=key, value=value, mask=mask) -> torch.Tensor:
                return scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True)

            def products(query=query, key=key, value=value, mask=mask, scaling=size**-0.5) -> torch.Tensor:
                return attend_by_products(query, key, value, mask, scaling)

            torch.testing.assert_close(kernel(), products(), atol=1e-5, rtol=1e-5)
            times = [median(side, options.repeats) for side in (kernel, products)]
            print(
                f"| {heads}, {kinds} x {size} | {rows} x {queries} x {keys} "
                f"| {rows * heads * queries * keys / 1000:.0f} | {times[0]:.2f} | {times[1]:.2f} "
                f"| {times[0] / times[1]:.2f} |",
                flush=True,
            )


@torch.inference_mode()
def median(side: Callable[[], torch.Tensor], repeats: int) -> float:
    """Return the milliseconds of one call."""
    side()
    spent = []
    for _ in range(repeats):
        start = time.perf_counter()
        side()
        spent.append(time.perf_counter() - start)
    return 1e3 * sorted(spent)[len(spent) // 2]


if __name__ == "__main__":
    main()
