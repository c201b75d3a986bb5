"""A config as plain data: signatures, validation, stored configs. Nothing here imports Hydra or torch."""
