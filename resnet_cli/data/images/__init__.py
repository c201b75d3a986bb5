"""Image files: download, decoding, and a cache of decoded arrays."""
