"""From scores to a cut. What a cut then does to a checkpoint is `lmmpress.lmm.checkpoint.apply_cuts`."""
