"""`python -m agent answer`: the winner of a sweep, measured once more beside what it has to beat, in one session."""

import json
import tempfile
from pathlib import Path

from prunefleet.agent.answer.find import PARTS, Answer, find_answer
from prunefleet.agent.commands.watching import CommandWatch, print_progress, watching
from prunefleet.agent.host.cache_files import replace_file
from prunefleet.agent.measure.device import usable_cores
from prunefleet.agent.tasks.training import threads
from prunefleet.agent.tracking import tracked_run
from prunefleet.agent.tracking.probe import require_server
from prunefleet.agent.tracking.tracked_run import Reader
from prunefleet.agent.trial.context import TrialContext, prepare
from prunefleet.agent.trial.request import Request, from_sweep


def answer(sweep: str, out: Path | None) -> int:
    """Write the answer of `sweep` (entity/project/id) as JSON to `out`, or to standard output.

    Reads the test split, for the winner and its controls alone; notes the result in the winner's summary and in runs of
    job type "control". Raises `BadInput`, or `TrialFailed` for a fault of this host.
    """
    require_server()
    reader = Reader(sweep)
    request = from_sweep(reader.config)
    with watching() as watch, tempfile.TemporaryDirectory() as folder:
        context = prepare(request, reader, watch.during, check=watch.check)
        with threads(usable_cores()):  # the agents have ended
            found = find_answer(reader, request, context, watch, Path(folder), _report)
            _note(found, reader, request, context, watch)
    text = json.dumps(found.document, indent=1)
    if out:
        replace_file(out, text.encode())
    else:
        print(text)
    return 0


def _report(done: int, text: str) -> None:
    print_progress("answer", done, PARTS, text)


def _note(found: Answer, reader: Reader, request: Request, context: TrialContext, watch: CommandWatch) -> None:
    """Put the test metric in the winner's summary, and the controls in runs of their own."""
    if found.winner is None:
        return
    metric = request.goal.metric
    reader.update_summary(found.winner, {f"test_{metric}": found.test})
    for name, control in found.controls.items():
        values = {key: value for key, value in control.items() if isinstance(value, float | str) and key != "test"}
        values |= {f"test_{metric}": control["test"]} if "test" in control else {}
        identity = {"id": f"{reader.name}-{name}".replace("_", "-"), "name": name, "group": reader.name}
        with tracked_run.own_run(watch.stopper, "control", upload=request.upload, **identity) as run:
            run.note({"kept": control.get("kept", context.space.widths), "host": context.devices[0].host})
            run.summarise(values)
    _report(PARTS, f"measured in one measurement session of {found.rounds} rounds")
