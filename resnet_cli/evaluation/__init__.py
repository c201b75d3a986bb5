"""What a trained run is worth: its metrics on a split, with intervals, and files of them."""
