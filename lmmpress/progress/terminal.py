"""The listener of the command line: shows events on stderr, with bars and the time left if that is a terminal."""

from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from lmmpress.printing.terminal import Status, Terminal
from lmmpress.progress.events import Event, Listener, Said, Work

_WORTH_SHOWING = 32 << 20  # bytes; a bar for less would only flicker


def on_terminal(terminal: Terminal | None = None) -> Listener:
    """A listener that shows its events on stderr, or on another `terminal`."""
    return _Shown(terminal or Terminal(stderr=True))


class _Bar:
    """A progress bar."""

    def __init__(self, terminal: Terminal, work: Work) -> None:
        counted: tuple[ProgressColumn, ...] = (MofNCompleteColumn(), TimeElapsedColumn())
        if work.unit == "bytes":
            counted = (DownloadColumn(), TransferSpeedColumn())
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            *counted,
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=terminal, transient=True)
        self._progress.start()
        self._task: TaskID = self._progress.add_task(work.label, total=work.total)
        self._done = 0

    def show(self, work: Work) -> None:
        self._progress.advance(self._task, work.done - self._done)
        self._done = work.done

    def end(self) -> None:
        self._progress.stop()


class _Spinner:
    """Work in progress whose length is not known."""

    def __init__(self, terminal: Terminal, work: Work) -> None:
        self._status: Status = terminal.status(work.label)
        self._status.start()

    def show(self, work: Work) -> None:
        self._status.update(work.label)

    def end(self) -> None:
        self._status.stop()


class _Shown:
    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._shown: dict[int, _Bar | _Spinner] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, Said):
            self._terminal.print(event.words)
        elif event.over:
            if shown := self._shown.pop(event.number, None):
                shown.end()
        elif event.number in self._shown:
            self._shown[event.number].show(event)
        elif event.done == 0 and self._is_worth_showing(event):
            self._shown[event.number] = (_Spinner if event.total is None else _Bar)(self._terminal, event)

    def _is_worth_showing(self, work: Work) -> bool:
        if work.total is None:
            return True
        return self._terminal.is_terminal and (work.unit == "items" or work.total >= _WORTH_SHOWING)
