"""Analysis of networks: layer tables, shapes, gradient norms by depth."""
