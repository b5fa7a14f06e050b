"""From source videos to decided clips: SkyReels-A1 §5.1 on Ray."""
