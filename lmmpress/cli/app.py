"""The command line: the app and its commands, and how a command fails."""

import importlib.metadata
import itertools
import os
import sys
from typing import Annotated

import typer

from lmmpress.cli import (
    advise,
    approve,
    checkpoints,
    compare,
    data,
    doctor,
    kubeflow,
    plan,
    report,
    run,
    store,
    task,
    trigger,
)
from lmmpress.cli.shared import console, say
from lmmpress.errors import UserError
from lmmpress.host.full_disk import is_full, system_says
from lmmpress.host.offline import stay_offline
from lmmpress.host.quiet import quiet_torchao
from lmmpress.progress import listening
from lmmpress.progress.log import LOG, LogForm, log_traceback, logging_in_form
from lmmpress.progress.terminal import on_terminal

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Compress large multimodal models in stages: prune a little, distil, measure, keep what stays within alpha.",
    epilog="--debug and --log may stand anywhere. --debug shows the traceback of an error.",
    pretty_exceptions_enable=False,
)
app.add_typer(store.app, name="store")
app.add_typer(trigger.app, name="trigger")
app.command()(kubeflow.compile)
app.command()(kubeflow.submit)
app.command()(approve.approve)
app.command()(doctor.doctor)
app.command()(run.run)
app.command()(plan.plan)
app.command()(advise.advise)
app.command()(checkpoints.prune)
app.command()(checkpoints.inspect)
app.command()(checkpoints.evaluate)
app.command()(data.data)
app.command()(compare.compare)
app.command()(report.report)
app.command()(task.task)


def _say_version(wanted: bool) -> None:
    if wanted:
        print(f"lmmpress {importlib.metadata.version('lmmpress')}")
        raise typer.Exit


@app.callback()
def listen(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version.")
    ] = False,
    log: Annotated[
        LogForm, typer.Option(envvar=LOG, help="What is printed on stderr: lines, or a JSON object a line.")
    ] = LogForm.text,
) -> None:
    """Show the library's messages and progress."""
    context.with_resource(logging_in_form(log))
    context.with_resource(listening(on_terminal(console)))


def main() -> None:
    """The entry point. An error is one line, with a traceback only if --debug is given. The exit code is 2 if the cause
    is the input or the environment, 1 if it is a fault of lmmpress."""
    debug = "--debug" in sys.argv
    sys.argv[1:], given = _log_first([argument for argument in sys.argv[1:] if argument != "--debug"])
    form = LogForm(given) if given in tuple(LogForm) else LogForm.text  # the option's own check says what it may be
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    stay_offline()
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", str(console.is_terminal).lower())
    sys.excepthook = lambda kind, error, trace: log_traceback(error)
    with quiet_torchao(), logging_in_form(form):
        try:
            _run(debug, form)
        except Exception as error:  # --debug
            if form is LogForm.text:
                raise
            log_traceback(error)
            raise SystemExit(1) from None


def _log_first(arguments: list[str]) -> tuple[list[str], str]:
    """Arguments with the option --log before all others, where the app takes it; and the form that is asked for, by
    that or by the environment."""
    rest, given = list[str](), list[str]()
    left = iter(arguments)
    for argument in left:
        if argument == "--":
            rest += [argument, *left]
        elif argument == "--log":
            given = [argument, *itertools.islice(left, 1)]
        elif argument.startswith("--log="):
            given = [argument]
        else:
            rest.append(argument)
    form = given[-1].rpartition("=")[2] if given else os.environ.get(LOG, "")
    return [*given, *rest], form


def _run(debug: bool, form: LogForm) -> None:
    try:
        if form is LogForm.json:  # a wrong argument is one object, and no frame of many lines
            raise SystemExit(app(standalone_mode=False))
        app()
    except UserError as error:
        if debug:
            raise
        _fail(*error.lines)
    except KeyboardInterrupt:
        _fail("stopped")
    except OSError as error:
        if debug:
            raise
        _fail(system_says(error))
    except Exception as error:
        if hasattr(error, "format_message"):  # of click: a wrong argument
            _fail(error.format_message(), code=getattr(error, "exit_code", 2))
        if debug:
            raise
        if is_full(error):
            _fail("no space left on the disk; free some and run the command again")
        what = f"{type(error).__name__}: {error}"
        _fail(f"{what}; this is a fault of lmmpress: please report what the command prints with --debug", code=1)


def _fail(*lines: str, code: int = 2) -> None:
    for line in lines:
        say("error", line, "red")
    raise SystemExit(code)


if __name__ == "__main__":
    main()
