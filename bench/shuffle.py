"""How well the plan shuffles, beside a permutation of the whole epoch: ``python -m bench.shuffle``.

100 shards of 256 samples, batches of 512, averaged over ten epochs. What windows cost is that samples of one shard come near
each other; the table says how near.
"""

from itertools import pairwise

import numpy as np

from shards.plan import DatasetShape, Plan

SHARDS, PER_SHARD, BATCH, EPOCHS = 100, 256, 512, 10
SAMPLES = SHARDS * PER_SHARD


def main() -> None:
    """Print the table."""
    plan = Plan([DatasetShape("0" * 64, (PER_SHARD,) * SHARDS)], seed=0)
    ours = np.array([plan.at(position).sample for position in range(EPOCHS * SAMPLES)]).reshape(EPOCHS, SAMPLES)
    random = np.random.default_rng(0)
    full = np.array([random.permutation(SAMPLES) for _ in range(EPOCHS)])
    print(f"{'':58} {'plan':>8} {'full':>8}")
    for text, measure in {
        "mean distance of a sample from its place in storage / N": _displacement,
        "mean distance between a sample's places in two epochs / N": _wandering,
        "correlation of the storage places of neighbours": _correlation,
        "neighbours out of one shard": _neighbours,
        "shards in a batch": _shards_in_batch,
        "pairs of a batch that meet in one again next epoch": _reunions,
    }.items():
        print(f"{text:58} {measure(ours):8.4f} {measure(full):8.4f}")


def _displacement(epochs: np.ndarray) -> float:
    return float(np.abs(epochs - np.arange(SAMPLES)).mean()) / SAMPLES


def _wandering(epochs: np.ndarray) -> float:
    return float(np.abs(np.diff(np.argsort(epochs, axis=1), axis=0)).mean()) / SAMPLES


def _correlation(epochs: np.ndarray) -> float:
    return float(np.mean([np.corrcoef(epoch[:-1], epoch[1:])[0, 1] for epoch in epochs]))


def _neighbours(epochs: np.ndarray) -> float:
    return float((np.diff(epochs // PER_SHARD, axis=1) == 0).mean())


def _shards_in_batch(epochs: np.ndarray) -> float:
    batches = (epochs // PER_SHARD).reshape(-1, BATCH)
    return float(np.mean([len(np.unique(batch)) for batch in batches]))


def _reunions(epochs: np.ndarray) -> float:
    batch_of = np.argsort(epochs, axis=1) // BATCH
    met = []
    for now, later in pairwise(batch_of):
        pairs = np.unique(now * (SAMPLES // BATCH) + later, return_counts=True)[1]
        met.append(float((pairs * (pairs - 1)).sum()) / (SAMPLES * (BATCH - 1)))
    return float(np.mean(met))


if __name__ == "__main__":
    main()
