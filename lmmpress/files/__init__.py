"""The files of strangers: which of them are a checkpoint, how they are read, what names them."""
