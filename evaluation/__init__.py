"""How good an animated portrait is: what SkyReels-A1's scripts measure, and what its paper says that they do (§5)."""
