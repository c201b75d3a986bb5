"""The content of resnet-info: descriptions of networks as plain data, and their tables."""
