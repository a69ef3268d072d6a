"""Read the run's state: is this step to be made?"""

from lmmpress.components.due.component import due

__all__ = ["due"]
