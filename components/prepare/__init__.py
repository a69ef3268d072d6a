"""Check what is asked and note it in the store."""

from lmmpress.components.prepare.component import prepare

__all__ = ["prepare"]
