"""Verified WebDataset shards: the sample schema, the writer, the index, verification."""
