"""What resnet-info shows, as data and as tables."""
