"""A portrait moved by another face: from a checkpoint, a picture and a driving video to a video (SkyReels-A1 §3)."""
