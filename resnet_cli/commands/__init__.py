"""The commands, each a thin layer over the package; torch is imported only when there is work to do."""
