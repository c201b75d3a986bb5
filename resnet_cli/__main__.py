"""`python -m resnet_cli` is `resnet-train`."""

from resnet_cli.commands.train import main

main()
