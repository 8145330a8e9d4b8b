"""The sweep file: read, and refused in one line where it says what no trial could follow.

Valid for `wandb sweep` on any W&B server; see https://docs.wandb.ai/models/sweeps/define-sweep-configuration for the
keys at its top. What stands below `parameters` is prunefleet's own and is described in docs/sweepfile.md.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from prunefleet.objective import checks, old_names, runners
from prunefleet.objective.errors import BadInput
from prunefleet.objective.goals.goal import Goal
from prunefleet.objective.trial import IMPORTANCES, RANKINGS

TOP_LEVEL = frozenset(
    {
        "command", "controller", "description", "early_terminate", "entity", "impute", "impute_while_running", "method",
        "metric", "metrics", "name", "parameters", "program", "project", "run_cap", "scheduler",
    }
)  # fmt: skip
PROGRAM, TRIAL = "prunefleet", "trial"
METHODS = ("bayes", "random", "grid", "custom")
OBJECTIVE = ("kind", "metric", "max_drop", "max_latency_ratio", "max_latency_ms", "weight")
MEASURE = ("device", "precision", "against", "runner", "threads", "energy")
RECIPE_CHECKS: Mapping[str, Callable[[str, object], object]] = {
    "epochs": lambda field, got: checks.number(field, got, low=0),
    "lr": lambda field, got: got is None or checks.positive(field, got),
    "seed": checks.whole,
    "distill": checks.truth,
    "importance": lambda field, got: checks.one_of(field, got, IMPORTANCES),
    "ranking": lambda field, got: checks.one_of(field, got, RANKINGS),
    "skip": checks.truth,
    "timeout_minutes": lambda field, got: got is None or checks.positive(field, got),
}
RECIPE = tuple(RECIPE_CHECKS)
BLOCKS: Mapping[str, tuple[str, ...]] = {"objective": OBJECTIVE, "measure": MEASURE, "recipe": RECIPE}
NESTED = ("options", "ratio")
SPECIFIED = ("value", "values", "min", "max", "distribution")
"""What a parameter's specification begins with."""
SINGLE = ("task", "code", "data", "profile", "baseline", "upload", "engine")
CODE = re.compile(r"([0-9a-f]{64})|code-([0-9a-f]{64}):v\d+")
UPLOADS: Mapping[str, str] = {
    "metrics": "figures and configurations; networks stay on the host that made them",
    "bundles": "figures, configurations, the runs' console lines, the dense network and every scored one",
    "all": "figures, configurations, the runs' console lines, the dense network, every scored one, the task's code",
}
"""What leaves the host, by the word in the sweep file."""
DEFAULT_UPLOAD = "bundles"
ENGINES = ("prunefleet", "wandb", "optuna")
"""What `method: bayes` searches with on the hub; docs/controller.md says what each of them sees."""
DEFAULT_ENGINE = "prunefleet"
SAME, F32 = AGAINST = ("same", "f32")
"""The dense network that latency ratios are of: at the candidate's own precision, or at f32."""


def read_sweep_file(path: Path) -> dict[str, Any]:
    """The sweep file as a dictionary, validated. Raises `BadInput` naming the field, the value and the remedy."""
    try:
        config = yaml.safe_load(path.read_text())
    except OSError as error:
        raise BadInput("sweep file", str(path), f"give a file that can be read ({error.strerror})") from None
    except yaml.YAMLError as error:
        raise BadInput("sweep file", str(path), f"mend its YAML: {' '.join(str(error).split())}") from None
    if not isinstance(config, dict):
        raise BadInput(
            "sweep file", str(path), "start it as the sweep.yaml of the README does: name, program, parameters"
        )
    if isinstance(config.get("command"), list):
        config["command"] = old_names.translated_words([str(word) for word in config["command"]])
    validate(config)
    return config


def validate(config: Mapping[str, Any]) -> None:
    """Refuse what `wandb sweep` or a trial would stumble over. Raises `BadInput`."""
    _known("sweep file", config, TOP_LEVEL)
    if config.get("program") != PROGRAM:
        raise BadInput("program", config.get("program"), f"write `program: {PROGRAM}`")
    command = config.get("command")
    if not isinstance(command, list) or TRIAL not in command:  # `wandb agent` would run `python prunefleet`
        raise BadInput("command", command, f"""write `command: ["${{env}}", {PROGRAM}, {TRIAL}]`""")
    if config.get("method") not in METHODS:
        raise BadInput("method", config.get("method"), checks.choose(config.get("method"), METHODS, "write one of"))
    cap = config.get("run_cap")
    if cap is not None and (not isinstance(cap, int) or cap < 1):
        remedy = checks.as_number(cap) or "write a whole number of at least 1, or leave it out"
        raise BadInput("run_cap", cap, remedy)
    parameters = config.get("parameters")
    if not isinstance(parameters, Mapping):
        raise BadInput("parameters", parameters, "write a block with task, objective, measure, recipe and ratio")
    _validate_parameters(parameters)


def _validate_parameters(parameters: Mapping[str, Any]) -> None:
    _known("parameters", parameters, (*SINGLE, *BLOCKS, *NESTED))
    if "task" not in parameters:
        raise BadInput("parameters.task", None, "write `task: {value: fashion_mnist}` or package.module:Class")
    for name, keys in BLOCKS.items():
        _known(f"parameters.{name}", block(parameters, name), keys)
    for name in SINGLE:
        if name in parameters:
            _leaf(name, parameters[name])
    for name in (*BLOCKS, *NESTED):
        for key, spec in block(parameters, name).items():
            _leaf(f"{name}.{key}", spec)
    for key, spec in block(parameters, "recipe").items():
        _validate_recipe(key, spec)
    upload_of(parameters)
    engine_of(parameters)
    Goal.from_parameters(constants(block(parameters, "objective")))
    options(parameters)
    _validate_measure(block(parameters, "measure"))
    for group, spec in block(parameters, "ratio").items():
        for ratio in choices(spec):
            if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 <= ratio < 1:
                remedy = checks.as_number(ratio) or "write ratios of at least 0 and below 1"
                raise BadInput(f"parameters.ratio.{group}", ratio, remedy)


def _leaf(field: str, spec: object) -> None:
    """Refuse what is no specification of a parameter, with the one that was meant."""
    if not isinstance(spec, Mapping):
        raise BadInput(field, spec, in_braces(spec))
    bounded = "min" in spec and "max" in spec
    if not bounded and not {"value", "values", "distribution", "parameters"} & spec.keys():
        raise BadInput(field, spec, specification(spec))


def specification(spec: Mapping[str, Any]) -> str:
    """Return the remedy for a parameter that says neither its values nor how they are drawn."""
    if spec and all(isinstance(each, Mapping) for each in spec.values()):
        return "nest them under `parameters:`"
    if len(bound := {"min", "max"} & spec.keys()) == 1:
        return f"add {'max' if 'min' in bound else 'min'}"
    like = next((like for key in spec if (like := checks.near(key, SPECIFIED))), None)
    return f"did you mean {like!r}?" if like else "write {value: …}, {values: […]} or {min: …, max: …}"


def in_braces(value: object) -> str:
    """Return the remedy for a bare value or list where a parameter's specification belongs."""
    return f"write {{{'values' if isinstance(value, list) else 'value'}: {written(value)}}}"


def written(value: object) -> str:
    """A value as it is written in a sweep file, within braces or brackets."""
    text = yaml.safe_dump([value], default_flow_style=True, width=math.inf, allow_unicode=True)
    return text.strip()[1:-1]


def _validate_recipe(key: str, spec: Mapping[str, Any]) -> None:
    """Refuse values that no trial could follow; of a distribution only that its figures are numbers."""
    for name in ("min", "max", "mu", "sigma", "q"):
        if name in spec:
            checks.number(f"recipe.{key}.{name}", spec[name])
    for value in [] if "distribution" in spec else choices(spec):
        RECIPE_CHECKS[key](f"recipe.{key}", value)


def _validate_measure(measure: Mapping[str, Any]) -> None:
    """All trials of a sweep are measured in one way, or their latencies could not be compared."""
    found = constants(measure)
    for key in ("device", "against", "runner", "threads", "energy"):
        if key in measure and key not in found:
            raise BadInput(f"parameters.measure.{key}", measure[key], "give one constant `value`")
    precisions = choices(measure.get("precision", {"value": F32}))
    if against(found.get("against", SAME)) == F32 and (len(precisions) < 2 or F32 not in precisions):
        remedy = "search measure.precision with f32 among its values, or leave it out: latency_ratio_f32 is told anyhow"
        raise BadInput("parameters.measure.against", F32, remedy)
    for precision in precisions:
        runners.measured_by(
            found.get("runner", runners.DEFAULT), found.get("threads", 1), found.get("energy"), precision
        )


def against(word: object) -> str:
    """Refuse what a latency ratio cannot be of; raises `BadInput`."""
    if word not in AGAINST:
        raise BadInput("measure.against", word, checks.choose(word, AGAINST, "write one of"))
    return str(word)


def code_sha256(reference: str) -> str:
    """The hash of the code that the constant `code` names; raises `BadInput` where it names none."""
    found = CODE.fullmatch(reference)
    if not found:
        raise BadInput("code", reference, "leave it to `prunefleet plan`: code-<sha256>:v0, or the sha256 alone")
    return str(found[1] or found[2])


def upload_of(parameters: Mapping[str, Any]) -> str:
    """The sweep's constant `upload`; raises `BadInput` for another word or for several."""
    return _word("upload", parameters, UPLOADS, DEFAULT_UPLOAD)


def engine_of(parameters: Mapping[str, Any]) -> str:
    """The sweep's constant `engine`; raises `BadInput` for another word or for several."""
    return _word("engine", parameters, ENGINES, DEFAULT_ENGINE)


def _word(key: str, parameters: Mapping[str, Any], known: Iterable[str], default: str) -> str:
    spec = parameters.get(key, {"value": default})
    word = spec.get("value") if isinstance(spec, Mapping) else spec
    if not isinstance(word, str) or word not in known:
        remedy = checks.choose(word, known, f"write one constant, such as {{value: {default}}}; known are")
        raise BadInput(f"parameters.{key}", spec, remedy)
    return word


def block(parameters: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """What stands below `name: parameters:`, nothing where it is left out. Raises `BadInput` for another shape."""
    outer = parameters.get(name, {"parameters": {}})
    inner = outer.get("parameters") if isinstance(outer, Mapping) else None
    if not isinstance(inner, Mapping):
        raise BadInput(f"parameters.{name}", outer, f"nest it: `{name}: {{parameters: {{…}}}}`")
    return inner


def options(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the task. Raises `BadInput` for one that is no constant: a sweep has one network and its data."""
    given = block(parameters, "options")
    for name, spec in given.items():
        checks.name("parameters.options", name)
        if not isinstance(spec, Mapping) or "value" not in spec:
            raise BadInput(f"parameters.options.{name}", spec, "write {value: …}: a sweep has one network and its data")
    return constants(given)


def constants(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The plain values of those parameters that are constants."""
    return {name: spec["value"] for name, spec in parameters.items() if isinstance(spec, Mapping) and "value" in spec}


def choices(spec: object) -> list[Any]:
    """The values that a parameter's specification names: its constant, its list, or its two bounds."""
    if not isinstance(spec, Mapping):
        raise BadInput("parameters", spec, "write {value: …}, {values: […]} or {min: …, max: …}")
    if "values" in spec:
        if not isinstance(spec["values"], list | tuple) or not spec["values"]:
            raise BadInput("parameters", spec, f"write {{values: […]}} with a list, or {in_braces(spec['values'])[6:]}")
        return list(spec["values"])
    return [spec[key] for key in ("value", "min", "max") if key in spec]


def _known(where: str, given: Mapping[str, Any], known: Iterable[str]) -> None:
    """Refuse a key that is not known, with the likeliest one that is."""
    for key in given:
        if key not in known:
            raise BadInput(f"{where}: unknown key", key, checks.choose(key, sorted(known)))
