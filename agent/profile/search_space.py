"""The search space of a planned sweep, written into its file."""

import copy
from collections.abc import Mapping
from typing import Any

from prunefleet.objective.profiles.profile import Profile
from prunefleet.objective.profiles.space import Space
from prunefleet.objective.sweepfile import F32, block, choices


def resolve(
    sweep: Mapping[str, Any],
    profile: Profile,
    reference: str,
    energy: str | None = None,
    data: str | None = None,
    code: str | None = None,
) -> dict[str, Any]:
    """The sweep file with its search space, profile artifact and dense model filled in; all else as the user wrote it.

    `reference`: the profile's artifact, such as "profile-fashion_mnist-cpu-f32:v0". A ratio block of the user's own
    stays as it is; raises `BadInput` where it names a group that the network has not. `energy`: the source that all
    trials are to read, unless the user has named one. `data`: the task's own word for it, which every host's must be.
    `code`: what every host is to run, an artifact's name or a hash.
    Where the precision is searched, ratios are to f32, unless the user says otherwise.
    """
    resolved = copy.deepcopy(dict(sweep))
    space = Space(profile.groups)
    parameters = resolved.setdefault("parameters", {})
    if "ratio" in parameters:
        Space.from_parameters(parameters["ratio"], space.widths, profile.groups[0].step)
    parameters.setdefault("ratio", space.parameters())
    precisions = choices(block(parameters, "measure").get("precision", {"value": F32}))
    added = {"energy": energy} if energy else {}
    if len(precisions) > 1 and F32 in precisions:  # else each would be held against its own dense network alone
        added["against"] = F32
    if added:
        measure = parameters.setdefault("measure", {"parameters": {}})["parameters"]
        for name, value in added.items():
            measure.setdefault(name, {"value": value})
    own = {name: {"value": value} for name, value in (("code", code), ("data", data)) if value}
    for name in ("code", "data"):
        parameters.pop(name, None)
    return resolved | {"parameters": parameters | _constants(profile, reference) | own}


def _constants(profile: Profile, reference: str) -> dict[str, Any]:
    return {"profile": {"value": reference}, "baseline": {"value": profile.baseline_hash}}
