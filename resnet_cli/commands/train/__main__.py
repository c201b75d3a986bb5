"""`python -m resnet_cli.commands.train` is `resnet-train` too."""

from resnet_cli.commands.train import main

main()
