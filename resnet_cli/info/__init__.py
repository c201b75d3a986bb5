"""The content of resnet-info, as data and as tables."""
