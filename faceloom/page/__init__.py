"""Pages to look at: one HTML file each, which asks no network for anything."""
