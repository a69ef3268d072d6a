"""What a checkpoint is worth: accuracy in one forward pass per row, and speed from pixels to answer."""
