"""The pinned model files that a configuration asks for, by the stage whose workers load them."""

from curation.config import CurationConfig
from curation.faces import MTCNN_FILES


def face_weights(config: CurationConfig) -> dict[str, str]:
    """Name in ``models.toml`` → the config key that asks for it, for the face stage."""
    mtcnn = MTCNN_FILES if config.census.detector != "blazeface" else ()
    return {"face_landmarker": "census", **dict.fromkeys(mtcnn, "census.detector")}


def flow_weights(config: CurationConfig) -> dict[str, str]:
    """As :func:`face_weights`, for the flow stage."""
    return {config.flow.model: "flow.model"}
