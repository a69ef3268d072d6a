"""A model as a checkpoint on disk: its anatomy, its family, cuts of it, its weights, and rows as its inputs."""
