"""What is read off a network: layer tables, shapes, gradient norms by depth."""
