"""Files from untrusted sources: which of them form a checkpoint, how they are read, and the checkpoint's digest."""
