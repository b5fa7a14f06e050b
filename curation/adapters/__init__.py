"""Adapters: from the folder of a dataset, as its authors lay it out, to the clips of a manifest."""
