"""`prunefleet init`: a commented sweep file, and a task to fill in where network and data are the user's own.

What is not given by a flag is asked on a terminal; elsewhere a line names each flag that is missing.
"""

import importlib.machinery
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunefleet.agent.commands import starting_files
from prunefleet.agent.commands.starting_files import IMAGE_METRICS, OF_A_CLASS, Start, TaskName
from prunefleet.objective import checks
from prunefleet.objective.errors import BadInput

BAD_INPUT = 2
SIZES = (64, 224, 299)
"""Pixels of a side, tried in this order: most networks take any, some their own alone."""
HARDWARE = {"cpu": "torch_cpu", "cuda": "torch_cuda", "gpu": "torch_cuda", "npu": "openvino_npu"}
Answers = dict[str, str]


@dataclass(frozen=True)
class FlagQuestion:
    """One thing to know: asked as `text` on a terminal, `default` where it may be left out, `remedy` where not.

    `check` refuses an answer, seen with those before it, by `BadInput`; `wanted` says whether they leave it open, and
    `optional` whether it may stay so where nobody can be asked.
    """

    name: str
    text: str
    default: str | None
    check: Callable[[str, Mapping[str, str]], object]
    remedy: str = ""
    wanted: Callable[[Mapping[str, str]], bool] = lambda answers: True
    optional: Callable[[Mapping[str, str]], bool] = lambda answers: False

    @property
    def flag(self) -> str:
        """The option as it is typed."""
        return f"--{self.name.replace('_', '-')}"


Ask = Callable[[FlagQuestion, Answers], str]


def init(given: Mapping[str, str | None]) -> int:
    """Write the files; `given` has the flags by name. Returns the exit code; raises `BadInput`."""
    answers, missing = _answered(given, _asked if sys.stdin.isatty() else None)
    for each in missing:
        print(f"prunefleet: {BadInput(each.flag, None, each.remedy)}", file=sys.stderr)
    if missing:
        return BAD_INPUT
    start = _start(answers)
    _write(starting_files.of(start))
    _tell(start)
    return 0


def _answered(given: Mapping[str, str | None], ask: Ask | None) -> tuple[Answers, list[FlagQuestion]]:
    """Every answer, checked beside those before it, and the questions that nobody can be asked."""
    answers: Answers = {}
    missing = []
    for each in QUESTIONS:
        value = given.get(each.name)
        if value is None and not each.wanted(answers):
            continue
        if value is None and ask:
            answers[each.name] = ask(each, answers)
        elif value is None and each.default is None:
            missing += [] if each.optional(answers) else [each]
        else:
            answers[each.name] = value if value is not None else str(each.default)
            each.check(answers[each.name], answers)
    return answers, missing


def _asked(question: FlagQuestion, answers: Answers) -> str:
    """Ask on the terminal until the answer can be right; Ctrl-D ends it as Ctrl-C does."""
    default = f" [{question.default}]" if question.default else ""
    while True:
        try:
            said = input(f"{question.text}{default}: ").strip() or question.default or ""
            question.check(said, answers)
            return said
        except EOFError:
            raise KeyboardInterrupt from None
        except BadInput as error:
            print(error)


def _start(answers: Mapping[str, str]) -> Start:
    """Return what the answers come to; look for the data, and try the network on a picture."""
    out = Path(answers["out"])
    task = TaskName.of(answers["network"])
    data = _located(answers["data"]) if answers.get("data") else None
    common: dict[str, Any] = {
        "out": out,
        "task": task,
        "metric": answers["metric"],
        "max_drop": float(answers["max_drop"]),
        "devices": tuple(answers["device"].split(",")),
    }
    if task:
        file = _file_of(task, out.parent)
        return Start(**common, root=str(data) if data else None, task_file=file, made=not file.exists())
    assert data is not None  # asked for
    classes, size = _tried(data, answers)
    return Start(
        **common,
        root=_root(data, _full(out.parent)),
        architecture=answers["network"],
        positive_class=answers.get("positive_class"),
        classes=classes,
        size=size,
    )


def _tried(data: Path, answers: Mapping[str, str]) -> tuple[tuple[str, ...], int]:
    """The classes of the pictures, and the size that the network takes."""
    folder = _pictures(data, answers)
    return folder.classes, _size_for(folder.architecture, len(folder.classes))


def _pictures(data: Path, answers: Mapping[str, str]) -> Any:
    """The task on the pictures in a folder, its files listed. Raises `BadInput` naming the flag at fault."""
    from prunefleet.agent.tasks.ready.image_folder import ImageFolder

    try:
        architecture = answers.get("network", "resnet18")
        folder = ImageFolder(root=str(data), architecture=architecture, positive_class=answers.get("positive_class"))
        _ = folder.entries
    except BadInput as error:
        flag = {"options.root": "--data", "data": "--data", "options.positive_class": "--positive-class"}
        raise BadInput(flag.get(error.field, error.field), error.got, error.remedy) from error
    return folder


def _size_for(architecture: str, classes: int) -> int:
    """The size that the network is tied to, else the first of `SIZES` that it takes; `check` says where it has none."""
    from prunefleet.agent.tasks.networks.zoo import input_size, runs_at
    from prunefleet.agent.tasks.ready.labelled import by_name

    network = by_name(architecture, classes, 3, None).eval()
    tied = input_size(network)
    return tied[0] if tied else next((side for side in SIZES if runs_at(network, 3, side, side)), SIZES[0])


def _root(data: Path, beside: Path) -> str:
    """Return the path of the pictures for the sweep file: relative to it or to PRUNEFLEET_DATA, or else in full."""
    from prunefleet.agent.tasks.ready.labelled import DATA

    for folder in (os.environ.get(DATA), beside):
        if folder and data.is_relative_to(above := _full(Path(folder))):
            name = data.relative_to(above)
            if name.parts and _found_as(name, beside) == data:
                return str(name)
    return str(data)


def _full(path: Path) -> Path:
    """The full path without `..`; a link stays one, for it may lead elsewhere on another host."""
    return Path(os.path.normpath(path.expanduser().absolute()))


def _found_as(name: Path, beside: Path) -> Path:
    """Return the folders in which a task will look for a relative name."""
    from prunefleet.agent.tasks.ready.labelled import located

    return beside / name if (beside / name).is_dir() else _full(located(str(name)))


def _located(text: str) -> Path:
    """The full path of a folder of data, as typed here, else below PRUNEFLEET_DATA. Raises `BadInput`."""
    from prunefleet.agent.tasks.ready.labelled import located, no_folder

    typed = Path(text).expanduser()
    found = typed if typed.is_dir() else located(text)
    if not text or not found.is_dir():
        raise BadInput("--data", text, no_folder(text).replace("beside the sweep file", "here"))
    return _full(found)


def _file_of(task: TaskName, folder: Path) -> Path:
    """The file of a task's module, there or to be written. Raises `BadInput` where another module is in its place."""
    top = task.module.partition(".")[0]
    elsewhere = None if top in sys.stdlib_module_names else _origin(top, folder)
    for root in (folder, *([elsewhere] if elsewhere else [])):
        if (path := starting_files.source(root, task.module)) is None:
            continue
        if not starting_files.defines(path, task.name):
            remedy = f"{path} has no {task.name}: add the class there, or name another module"
            raise BadInput("--network", str(task), remedy)
        return path
    if elsewhere or top in sys.stdlib_module_names:
        remedy = f"name another module: Python finds its {top} in {elsewhere or 'its own library'}"
        raise BadInput("--network", str(task), remedy)
    return folder.joinpath(*task.module.split(".")).with_suffix(".py")


def _origin(top: str, folder: Path) -> Path | None:
    """The folder that Python would find a module of that name in, before it looks into `folder`."""
    places = [each for each in sys.path if each and Path(each).absolute() not in (Path.cwd(), folder.absolute())]
    spec = importlib.machinery.PathFinder.find_spec(top, places)
    if spec is None or spec.origin is None:
        return None
    origin = Path(spec.origin)
    return origin.parent.parent if spec.submodule_search_locations else origin.parent


def _write(files: Mapping[Path, str]) -> None:
    """Write all files or none; raises `BadInput` where one is there already or cannot be made."""
    for path in files:
        if path.exists():
            raise BadInput("--out", str(path), "it is there and is not overwritten: move it, or give another name")
    made: list[Path] = []
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                made.append(path)
                file.write(text)
    except OSError as error:
        for path in made:
            path.unlink(missing_ok=True)
        raise BadInput("--out", str(path), f"give a place that can be written to ({error.strerror})") from error


def _tell(start: Start) -> None:
    if start.made:
        print(f"Wrote {start.task_file}: a task that runs as it is, on data that it makes up; put yours in its place")
    elif start.task_file:
        print(f"Left {start.task_file} as it is")
    print(f"Wrote {start.out}")
    folder = start.out.parent
    change = "" if folder == Path() else f"cd {folder} && "
    print(f"Next: {change}prunefleet check {start.out.name}")


def _check_network(text: str, answers: Mapping[str, str]) -> None:
    if TaskName.of(text):
        return
    from prunefleet.agent.tasks.ready.labelled import require_architecture

    try:
        require_architecture(text)
    except BadInput as error:
        raise BadInput("--network", text, error.remedy) from error


def _check_data(text: str, answers: Mapping[str, str]) -> None:
    if text or not _is_own(answers):
        data = _located(text)
        _ = None if _is_own(answers) else _pictures(data, answers)


def _check_metric(text: str, answers: Mapping[str, str]) -> None:
    checks.name("--metric", text)
    if not _is_own(answers) and text not in IMAGE_METRICS:
        raise BadInput("--metric", text, checks.choose(text, IMAGE_METRICS))


def _check_class(text: str, answers: Mapping[str, str]) -> None:
    if _is_own(answers):
        raise BadInput("--positive-class", text, "leave it out: a task of your own says it as `positive`")
    if data := answers.get("data"):
        _pictures(_located(data), {**answers, "positive_class": text})


def _check_drop(text: str, answers: Mapping[str, str]) -> None:
    from prunefleet.objective.goals.goal import Goal

    try:
        number = float(text)
    except ValueError:
        raise BadInput("--max-drop", text, checks.as_number(text) or "give a fraction such as 0.01") from None
    try:
        Goal(max_drop=number)
    except BadInput as error:
        raise BadInput("--max-drop", text, error.remedy) from error


def _check_device(text: str, answers: Mapping[str, str]) -> None:
    from prunefleet.objective.devices import device_names

    device_names("--device", text.split(","))
    if runner := HARDWARE.get(text.lower()):
        raise BadInput("--device", text, f"give local; what runs networks here is measure.runner in the file: {runner}")


def _check_out(text: str, answers: Mapping[str, str]) -> None:
    if not text or Path(text).is_dir():
        raise BadInput("--out", text, "give the name of a file, such as sweep.yaml")
    if Path(text).exists():
        raise BadInput("--out", text, "it is there and is not overwritten: move it, or give another name")


def _is_own(answers: Mapping[str, str]) -> bool:
    return ":" in answers.get("network", "")


def _of_a_class(answers: Mapping[str, str]) -> bool:
    return not _is_own(answers) and answers.get("metric") in OF_A_CLASS


QUESTIONS = (
    FlagQuestion(
        "network",
        "Network: an architecture such as resnet18 or timm/NAME for pictures in folders, or MODULE:CLASS for your own",
        None,
        _check_network,
        "give an architecture such as resnet18 or timm/NAME, or MODULE:CLASS for a network of your own",
    ),
    FlagQuestion(
        "data",
        "Folder with the data: pictures in a folder for each class; of a network of your own anything, or nothing",
        None,
        _check_data,
        "give the folder with the pictures, a folder for each class",
        optional=_is_own,
    ),
    FlagQuestion("metric", "Metric that must not be lost", "top1", _check_metric),
    FlagQuestion(
        "positive_class",
        "Class that the metric is about",
        None,
        _check_class,
        "give the class that recall, precision or f1 is about",
        wanted=_of_a_class,
    ),
    FlagQuestion("max_drop", "How much of it may be lost, as a fraction: 0.01 is one point", "0.01", _check_drop),
    FlagQuestion("device", "Device to measure on: local, or devices of the fleet by name", "local", _check_device),
    FlagQuestion("out", "File to write", "sweep.yaml", _check_out),
)


def flags() -> Iterator[tuple[str, str]]:
    """Each flag with its help."""
    for each in QUESTIONS:
        yield each.flag, each.text + (f" (default: {each.default})" if each.default else "")
