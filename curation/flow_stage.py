"""The flow stage (CPU or GPU): optical flow, the aligned face, its tokens and the reference frame of a clip that passed.

Everything here is computed from the *decoded* sample video, so that all fields of a sample describe the same pixels.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from curation.config import CurationConfig
from curation.drafts import Draft
from curation.flow import FlowEstimator, clip_flow
from curation.identity import FaceEncoder, align_face, choose_frame, face_encoder
from curation.stages import StageClock
from faceloom.models import model_path
from landmarks.angles import head_pose_deg
from landmarks.record import dequantise, to_crop
from shards.schema import HEIGHT, WIDTH, decode_field, encode_field
from shards.video import decode_video

_JPEG_QUALITY = 95


@dataclass(frozen=True)
class FlowTools:
    """What the stage keeps loaded between clips."""

    estimator: FlowEstimator
    encoder: FaceEncoder | None

    @classmethod
    def load(cls, config: CurationConfig) -> "FlowTools":
        """Load RAFT and the face encoder. Raises :class:`faceloom.errors.UserError` when weights are missing."""
        estimator = FlowEstimator(config.flow, model_path(config.flow.model, "flow.model"))
        return cls(estimator, face_encoder(config.face))


def finish(
    draft: Draft, tools: FlowTools, config: CurationConfig, statistics: dict[str, float], clock: StageClock
) -> dict[str, bytes]:
    """The encoded fields of the finished sample; adds the flow statistics to ``statistics``."""
    meta = dict(draft.meta)
    fields = dict(draft.fields)
    clip_id, n_valid = meta["clip_id"], meta["n_valid"]

    with clock.stage("flow"):
        frames = decode_video(fields["video.mp4"])
        result = clip_flow(frames, tuple(meta["valid_x0x1"]), n_valid, tools.estimator)
        statistics |= {"flow_mean_px": float(result.pairs[: n_valid - 1, 0].mean()), "flow_p995_px": result.p995}

    with clock.stage("identity"):
        points = dequantise(decode_field("landmarks.u16.npy", fields["landmarks.u16.npy"]))
        points_px = to_crop(points, meta["source_wh"], meta["crop_xywh"], (WIDTH, HEIGHT))
        yaw = head_pose_deg(decode_field("pose.npy", fields["pose.npy"]))[:n_valid, 0]
        found = np.array(meta["found"])[:n_valid]
        face_frame = choose_frame(clip_id, "face", found, yaw)
        reference_frame = choose_frame(clip_id, "reference", found, yaw)
        face = align_face(frames[face_frame], points_px[face_frame])
        if tools.encoder is not None:
            fields["face_tokens.npy"] = encode_field("face_tokens.npy", tools.encoder(face))

    meta |= {
        "face_frame": face_frame,
        "reference_frame": reference_frame,
        "face_encoder": config.face.encoder,
        "flow": {
            "model": config.flow.model,
            "scale": config.flow.scale,
            "iterations": config.flow.iterations,
            "p995": result.p995,
        },
        "statistics": {name: round(value, 6) for name, value in sorted(statistics.items())},
    }
    fields |= {
        "flow.npy": encode_field("flow.npy", result.flow),
        "flow_pairs.npy": encode_field("flow_pairs.npy", result.pairs),
        "face.jpg": _jpeg(face),
        "reference.jpg": _jpeg(frames[reference_frame]),
        "meta.json": encode_field("meta.json", meta),
    }
    return fields


def _jpeg(image: np.ndarray) -> bytes:
    encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1]
    return bytes(encoded)
