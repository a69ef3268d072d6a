"""The containers that rows come in, a file each: what files they are, and how their records are read as a stream."""
