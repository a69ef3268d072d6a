"""Where several machines meet that make a part together: the first one hands its job to the others.

The job goes from machine to machine, not through the store: so nothing of an attempt that broke off is taken for a new
one, and the others end where the first one does.
"""

from datetime import timedelta

from torch.distributed import DistError, TCPStore

from lmmpress.errors import AwayError
from lmmpress.host.machines import Machines

_JOB = "job"
_ARRIVES, _PREPARES = timedelta(hours=1), timedelta(days=7)
"""How long a machine waits until it reaches the first one, and until that has made what all of them need."""


class Meeting:
    """The meeting of some machines, from its beginning to the end of the process. Raises AwayError if the first machine
    cannot be reached for an hour."""

    def __init__(self, machines: Machines, arrives: timedelta = _ARRIVES) -> None:
        self.machines = machines
        where = machines.address, machines.port + 1
        try:
            self._held = TCPStore(*where, is_master=machines.is_first, wait_for_workers=False, timeout=arrives)
        except (DistError, RuntimeError) as error:
            raise AwayError(
                f"{where[0]}, port {where[1]}: the first machine is not reached: {_first_line(error)}"
            ) from None

    def hand_out(self, job: str) -> None:
        """Give a job, as text, to all others."""
        self._held.set(_JOB, job)

    def job(self) -> str:
        """The job of the first machine, once there is one. Raises AwayError if that machine ends without one."""
        self._held.set_timeout(_PREPARES)
        try:
            return self._held.get(_JOB).decode("utf-8")
        except (DistError, RuntimeError) as error:
            raise AwayError(f"{self.machines.address}: the first machine has ended: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
