"""The sample model of lmmpress/sample: how its weights were trained, and its pictures made."""
