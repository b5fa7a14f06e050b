"""Data-Juicer's motion score, one video a line: what ``bench.curation`` runs in Data-Juicer's own virtual environment.

Needs nothing of Faceloom. Reads ``{"path": …, "size": null | 256}`` a line on standard input, and answers each with
``{"cpu_s": …, "score": …, "keep": …}``; the first line it writes says what it is. CPU seconds are of this process, all
its threads, without loading.
"""

import json
import os
import sys
import time
from importlib.metadata import version
from typing import Any


def main() -> None:
    """Answer until standard input ends."""
    # Standard output carries answers only; what libraries print goes the way of their warnings.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(content: dict[str, Any]) -> None:
        print(json.dumps(content), file=answers, flush=True)

    import cv2
    from data_juicer.ops.filter.video_motion_score_filter import VideoMotionScoreFilter
    from data_juicer.utils.constant import Fields

    cv2.setNumThreads(1)
    operators = {size: VideoMotionScoreFilter(sampling_fps=2, size=size) for size in (None, 256)}
    answer({"data_juicer": version("py-data-juicer"), "opencv": cv2.__version__, "python": sys.version.split()[0]})
    for line in sys.stdin:
        question = json.loads(line)
        operator = operators[question["size"]]
        start = time.process_time()
        sample = operator.compute_stats_single({"videos": [question["path"]], Fields.stats: {}})
        keep = operator.process_single(sample)
        seconds = time.process_time() - start
        score = float(sample[Fields.stats]["video_motion_score"][0])
        answer({"cpu_s": seconds, "score": score, "keep": bool(keep)})


if __name__ == "__main__":
    main()
