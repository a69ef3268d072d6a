"""The listener of the command line, on stderr: bars with the time left on a terminal; where nobody watches, a line at
every change of part and every 30 seconds, or the same as JSON."""

from collections.abc import Callable

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
from lmmpress.progress.lines import as_values, in_words
from lmmpress.progress.log import LogForm, log, log_form
from lmmpress.progress.pulse import Pulse, Report

_WORTH_SHOWING = 32 << 20  # bytes; a bar for less would only flicker


def on_terminal(terminal: Terminal | None = None) -> Listener:
    """A listener that shows its events on stderr, or on another `terminal`. With LMMPRESS_LOG=json in the environment
    each is a JSON object on stderr."""
    if log_form() is LogForm.json:
        return _Lines(lambda words: log("info", words), _log_report)
    shown = terminal or Terminal(stderr=True)
    if shown.is_terminal:
        return _Shown(shown)
    return _Lines(shown.print, lambda report: shown.print(in_words(report)))


def _log_report(report: Report) -> None:
    log("info", in_words(report), kind="progress", **as_values(report))


class _Lines:
    """Events as lines, for a log that is read later."""

    def __init__(self, tell: Callable[[str], None], report: Callable[[Report], None]) -> None:
        self._tell, self._pulse = tell, Pulse(report)

    def __call__(self, event: Event) -> None:
        if isinstance(event, Said):
            self._tell(event.words)
        else:
            self._pulse(event)


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
        self._status: Status = terminal.status(_title(work))
        self._status.start()

    def show(self, work: Work) -> None:
        self._status.update(_title(work))

    def end(self) -> None:
        self._status.stop()


class _Shown:
    """Bars of what is counted. While there is none, a line with what is being done."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._bars: dict[int, _Bar] = {}
        self._uncounted: dict[int, Work] = {}
        self._spinner: _Spinner | None = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, Said):
            self._terminal.print(event.words)
            return
        if event.total is None:
            self._uncounted[event.number] = event
            if event.over:
                del self._uncounted[event.number]
        elif event.over:
            if bar := self._bars.pop(event.number, None):
                bar.end()
        elif event.number in self._bars:
            self._bars[event.number].show(event)
            return
        elif event.done == 0 and self._is_worth_showing(event):
            self._spin(None)  # a terminal shows one of them at a time
            self._bars[event.number] = _Bar(self._terminal, event)
            return
        if not self._bars:
            self._spin(next(reversed(self._uncounted.values()), None))

    def _spin(self, work: Work | None) -> None:
        if work is None:
            if self._spinner:
                self._spinner.end()
            self._spinner = None
        elif self._spinner:
            self._spinner.show(work)
        else:
            self._spinner = _Spinner(self._terminal, work)

    def _is_worth_showing(self, work: Work) -> bool:
        return work.unit == "items" or (work.total or 0) >= _WORTH_SHOWING


def _title(work: Work) -> str:
    """What a line says of work that counts nothing: of a part also the step."""
    return f"{work.part.step}: {work.label}" if work.part and work.part.step else work.label
