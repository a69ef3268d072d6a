"""Distils the teacher into a pruned model: the loss of Eq. 5 and the training loop."""
