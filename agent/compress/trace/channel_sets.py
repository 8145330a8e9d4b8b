"""What a trace says can be pruned together: the channels of each layer, what goes with them, or why they stay."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn

from prunefleet.agent.compress.cut import OWNERS, Slot, can_cut, find, width
from prunefleet.agent.compress.trace.atoms import NONE, Atoms
from prunefleet.agent.compress.trace.trace_state import Division, Side, TraceState

PRUNABLE = (nn.modules.conv._ConvNd, nn.Linear)


@dataclass(frozen=True)
class Count:
    """A number in a module that is the length of a dimension of channels, and shrinks with a group."""

    module: str
    attribute: str
    value: int


@dataclass(frozen=True)
class Reach:
    """What a pruned channel takes with it.

    `slots` are the layers' channels; the i-th root channel goes with all those of the same number in `tied`;
    `hindrance` says why they cannot be pruned at all; `counts` are numbers in modules that may have to shrink too;
    `modules` are those whose code divides the channels or views them, in one of `choices` ways; `uneven` and `rolled`
    say what it does with them.
    """

    slots: tuple[Slot, ...]
    tied: tuple[int, ...]
    hindrance: str | None
    counts: tuple[Count, ...]
    modules: frozenset[str]
    choices: int
    uneven: bool
    rolled: bool


class ChannelSets:
    """The channels of a traced network, in classes of those that go together.

    `rank` says which dimension of a divided one gets shorter: the likeliest (0), the next (1), and so on.
    """

    def __init__(self, state: TraceState, network: nn.Module, rank: int = 0) -> None:
        self._state, self._network = state, network
        self._tied = state.atoms.copy()
        for one, other in state.ties:
            self._tied.meet(one, other)
        for division in state.divisions:
            _divide(self._tied, division, rank)

    def covered(self, name: str) -> torch.Tensor:
        """Return the atoms [width] that the layer `name` writes."""
        return self._state.written[name]

    def writes(self, name: str) -> bool:
        """Return whether a layer writes channels of its own."""
        return name in self._state.written

    def used(self, name: str) -> bool:
        """Return whether the forward pass uses a layer."""
        return any(side.layer == name for side in self._state.met) or name in self._state.unknown

    def members(self, name: str, numbers: Mapping[int, Sequence[int]]) -> dict[int, torch.Tensor]:
        """Return all atoms that go with each set of the layer's channels; `numbers`: the channels of each set."""
        rows = self._everyone[self._state.written[name]].tolist()
        found = {}
        for bundle, channels in numbers.items():
            classes = sorted({rows[channel] for channel in channels})
            found[bundle] = torch.cat([self._by_class[each] for each in classes])
        return found

    @cached_property
    def _by_class(self) -> dict[int, torch.Tensor]:
        """The atoms of each class."""
        classes, order = self._everyone.sort(stable=True)
        each, counts = classes.unique_consecutive(return_counts=True)  # type: ignore[no-untyped-call]
        parts = torch.split(order, counts.tolist())
        return dict(zip(each.tolist(), parts, strict=True))

    @cached_property
    def _everyone(self) -> torch.Tensor:
        """The class of each atom."""
        return self._tied.classes(torch.arange(len(self._tied)))

    def whole(self, name: str) -> str | None:
        """Return why a layer stays whole whatever its channels meet."""
        return self._state.unknown.get(name)

    def reach(self, name: str, channels: Sequence[int]) -> Reach:
        """What removing these output channels of the layer `name` would take with it."""
        atoms = self._state.written[name][list(channels)]
        same, tied = _numbers(self._state.atoms, atoms), _numbers(self._tied, atoms)
        roots = [tied[self._tied.top(atom)] for atom in atoms.tolist()]
        slots = tuple(self._slots(same, tied))
        reason = self._hindrance(slots, set(tied))
        sizes = self._sizes(set(tied))
        counts = tuple(self._counts(sizes))
        return Reach(
            slots, tuple(roots), reason, counts, frozenset(sizes), *self._divided(set(tied)), self._rolled(set(tied))
        )

    def _slots(self, same: Mapping[int, int], tied: Mapping[int, int]) -> Iterator[Slot]:
        wanted = set(tied)
        for side, classes in self._sides.items():
            if wanted.isdisjoint(classes):
                continue
            atoms = self._met[side]
            channels = [at for at, each in enumerate(classes) if each in wanted]
            numbers = [same.get(self._state.atoms.top(atoms[at]), tied[classes[at]]) for at in channels]
            yield Slot(side.layer, side.out, tuple(channels), tuple(numbers), side.dim)

    @cached_property
    def _met(self) -> dict[Side, list[int]]:
        """By side: the atom at each channel, bare parameters among them."""
        met = {side: atoms.tolist() for side, atoms in self._state.met.items()}
        for name, atoms in self._state.bare.items():
            classes = self._tied.classes(atoms)
            for dim in range(atoms.ndim):
                lines = classes.movedim(dim, 0).reshape(classes.shape[dim], -1)
                if lines.shape[0] > 1 and bool((lines == lines[:, :1]).all()):
                    met[Side(name, True, dim)] = atoms.movedim(dim, 0).reshape(classes.shape[dim], -1)[:, 0].tolist()
        return met

    @cached_property
    def _sides(self) -> dict[Side, list[int]]:
        """By side: the class at each channel."""
        return {side: [self._tied.top(atom) for atom in atoms] for side, atoms in self._met.items()}

    @cached_property
    def _pins(self) -> dict[int, str]:
        """By class: why it cannot be removed."""
        return {self._tied.top(atom): reason for atom, reason in reversed(self._state.atoms.pins.items())}

    @cached_property
    def _scattered(self) -> dict[int, str]:
        """By class: a bare parameter that it meets along no one dimension."""
        found: dict[int, str] = {}
        for name, atoms in self._state.bare.items():
            if atoms.numel() > 1 and not any(side.layer == name for side in self._met):
                found |= dict.fromkeys(torch.unique(self._tied.classes(atoms)).tolist(), name)
        return found

    def _hindrance(self, slots: Sequence[Slot], classes: set[int]) -> str | None:
        for slot in slots:
            layer = find(self._network, slot.layer)
            if not can_cut(layer, slot.out):
                return f"its channels pass through {slot.layer}, a {_kind(layer)}"
            if max(slot.channels) >= width(layer, slot.out, slot.dim):
                return f"its channels do not line up with those of {slot.layer}"
        for each in classes:
            if each in self._pins:
                return self._pins[each]
            if each in self._scattered:
                return f"its channels meet {self._scattered[each]} in more than one dimension"
        return None

    def _divided(self, classes: set[int]) -> tuple[int, bool]:
        """In how many ways divided dimensions of these channels could get shorter; whether any parts are unequal."""
        touching = [each for each, mine in self._divisions if not classes.isdisjoint(mine)]
        return max((len(each.choices()) for each in touching), default=1), any(each.uneven for each in touching)

    def _rolled(self, classes: set[int]) -> bool:
        """Whether the code rolls these channels by some number."""
        return any(not classes.isdisjoint(self._classes(atoms)) for atoms in self._state.rolled)

    @cached_property
    def _divisions(self) -> list[tuple[Division, set[int]]]:
        """The divisions, each with the classes in it."""
        return [(each, self._classes(each.atoms)) for each in self._state.divisions]

    @cached_property
    def _lengths(self) -> list[tuple[str, set[int], set[int]]]:
        """Module, classes, and the lengths of the dimensions along which they differ, in the module's code."""
        found = []
        for module, atoms in (*self._state.touched, *((each.module, each.atoms) for each in self._state.divisions)):
            classes = self._everyone[atoms]
            sizes = {classes.shape[dim] for dim in range(classes.ndim) if _differ(classes, dim)}
            found.append((module, set(torch.unique(classes).tolist()) - {NONE}, sizes))
        return found

    def _classes(self, atoms: torch.Tensor) -> set[int]:
        return set(torch.unique(self._everyone[atoms]).tolist()) - {NONE}

    def _sizes(self, classes: set[int]) -> dict[str, set[int]]:
        """By module: the lengths of dimensions of these channels in its own code."""
        sizes: dict[str, set[int]] = defaultdict(set)
        for module, mine, lengths in self._lengths:
            if not classes.isdisjoint(mine):
                sizes[module] |= lengths
        return sizes

    def _counts(self, sizes: Mapping[str, set[int]]) -> Iterator[Count]:
        """Numbers in modules that equal such a length."""
        for module, lengths in sizes.items():
            owner = self._network.get_submodule(module)
            for attribute, value in () if isinstance(owner, OWNERS) else vars(owner).items():
                if isinstance(value, int) and not isinstance(value, bool) and value in lengths and value > 1:
                    yield Count(module, attribute, value)


def _divide(tied: Atoms, division: Division, rank: int) -> None:
    """Tie what has to go together so that one dimension alone of a divided one gets shorter."""
    if division.uneven:
        return
    classes = tied.classes(division.atoms)
    varying = [dim for dim in range(classes.ndim) if _differ(classes, dim)]
    options = [dim for dim in division.choices() if dim in varying]
    if len(options) > 1:
        shorter = options[rank % len(options)]
        rows = division.atoms.movedim(shorter, 0).reshape(classes.shape[shorter], -1)
        tied.meet(rows[:, :1].expand_as(rows).contiguous(), rows)


def _differ(classes: torch.Tensor, dim: int) -> bool:
    return bool((classes != classes.narrow(dim, 0, 1)).any())


def _numbers(atoms: Atoms, roots: torch.Tensor) -> dict[int, int]:
    """By class: the first root channel in it."""
    found: dict[int, int] = {}
    for number, atom in enumerate(roots.tolist()):
        found.setdefault(atoms.top(atom), number)
    return found


def _kind(module: object) -> str:
    name = type(module).__name__
    return f"{name} of groups={module.groups}" if isinstance(module, nn.modules.conv._ConvNd) else name
