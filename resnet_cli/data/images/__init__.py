"""Image files: downloads, decoding and the cache of decoded arrays."""
