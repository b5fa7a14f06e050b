"""What cheaper flow settings cost in quality, on footage of one's own.

    python -m bench.flow_quality --videos *.mp4 [--pairs 6] [--reference raft-large]

Each video gives consecutive frames at 12 fps from its middle, cropped by centre to 480×720. Every setting computes the
pooled foreground flow F of the same pairs; the table gives its Pearson correlation with the reference (full resolution,
12 iterations) over all cells and pairs of a video, mean and minimum over videos, and the CPU seconds a pair takes on
one thread, which is what it would last on an idle core.
"""

import argparse
import statistics
import time
from pathlib import Path

import av
import cv2
import numpy as np
import torch

from curation.flow import FlowConfig, FlowEstimator, foreground, pool
from faceloom.models import model_path
from shards.schema import FPS, HEIGHT, WIDTH

CANDIDATES = (
    ("raft-small", 1.0, 12),
    ("raft-small", 1.0, 6),
    ("raft-small", 0.5, 12),
    ("raft-small", 0.5, 6),
    ("raft-small", 0.5, 4),
    ("raft-small", 1 / 3, 6),
    ("raft-small", 1 / 3, 4),
    ("raft-small", 0.25, 6),
    ("raft-large", 0.5, 12),
    ("raft-large", 0.5, 6),
    ("raft-large", 0.5, 4),
    ("raft-large", 1 / 3, 6),
    ("raft-large", 1 / 3, 4),
    ("raft-large", 0.25, 6),
)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", nargs="+", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=6, help="frame pairs of each video (default: %(default)s)")
    parser.add_argument("--reference", choices=("raft-small", "raft-large"), default="raft-small")
    args = parser.parse_args()

    torch.set_num_threads(1)
    clips = [read_middle(video, args.pairs + 1) for video in args.videos]
    reference, seconds = measure((args.reference, 1.0, 12), clips)
    print(f"{len(clips)} videos, {args.pairs} pairs each; reference {args.reference}, scale 1, 12 iterations")
    print(f"{'model':<11} {'scale':>5} {'iterations':>10} {'corr. mean':>10} {'min':>6} {'s/pair':>7}")
    print(f"{args.reference:<11} {1:5.2f} {12:10d} {1:10.3f} {1:6.3f} {seconds:7.2f}")
    for candidate in CANDIDATES:
        if candidate == (args.reference, 1.0, 12):
            continue
        fields, seconds = measure(candidate, clips)
        correlations = [
            float(np.corrcoef(field.ravel(), true.ravel())[0, 1]) for field, true in zip(fields, reference, strict=True)
        ]
        model, scale, iterations = candidate
        print(
            f"{model:<11} {scale:5.2f} {iterations:10d} {statistics.mean(correlations):10.3f} {min(correlations):6.3f} "
            f"{seconds:7.2f}",
            flush=True,
        )


def measure(candidate: tuple[str, float, int], clips: list[np.ndarray]) -> tuple[list[np.ndarray], float]:
    """Pooled foreground flow [pairs, 60, 90] of each clip, and the CPU seconds a pair took."""
    model, scale, iterations = candidate
    config = FlowConfig.model_validate({"model": model, "scale": scale, "iterations": iterations, "device": "cpu"})
    estimator = FlowEstimator(config, model_path(model, "--reference"))
    list(estimator.pairs(clips[0][:2]))  # warm up
    start = time.process_time()
    flows = [list(estimator.pairs(clip)) for clip in clips]
    seconds = (time.process_time() - start) / sum(len(pairs) for pairs in flows)
    fields = [np.stack([pool(foreground(np.hypot(*np.moveaxis(flow, -1, 0)))[0]) for flow in pairs]) for pairs in flows]
    return fields, seconds


def read_middle(video: Path, count: int) -> np.ndarray:
    """``count`` frames at 12 fps around the middle of the video: uint8 [count, 480, 720, 3] RGB."""
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        frames = [centre_crop(frame.to_ndarray(format="rgb24")) for frame in container.decode(stream)]
        step = float(stream.average_rate or FPS) / FPS
    span = round((count - 1) * step)
    if len(frames) <= span:
        raise SystemExit(f"{video}: {len(frames)} frames are too few for {count} at {FPS} fps")
    first = (len(frames) - span) // 2
    return np.stack([frames[first + min(span, round(i * step))] for i in range(count)])


def centre_crop(frame: np.ndarray) -> np.ndarray:
    """The largest central 3:2 part of the frame, resized to 480×720."""
    height, width = frame.shape[:2]
    scale = min(height / HEIGHT, width / WIDTH)
    crop_height, crop_width = round(HEIGHT * scale), round(WIDTH * scale)
    top, left = (height - crop_height) // 2, (width - crop_width) // 2
    part = frame[top : top + crop_height, left : left + crop_width]
    return cv2.resize(part, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA if scale > 1 else cv2.INTER_CUBIC)


if __name__ == "__main__":
    main()
