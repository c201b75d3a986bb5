"""resnet-cli: train residual image classifiers from one command."""
