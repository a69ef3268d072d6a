"""One file per family. A new family is a new file here: see docs/adding-a-family.md."""
