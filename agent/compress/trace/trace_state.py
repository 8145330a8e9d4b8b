"""What is known while a network is traced: atoms of tensors, what meets what, and where code divides channels."""

import math
from dataclasses import dataclass, field

import torch
from torch import nn

from prunefleet.agent.compress.cut import OWNERS
from prunefleet.agent.compress.trace.atoms import NONE, Atoms, thin

Key = tuple[int, int, tuple[int, ...], tuple[int, ...]]
"""A tensor by where it lies in memory, so that aliases are one and what is written in place stays known."""


@dataclass(frozen=True)
class Origin:
    """A parameter or buffer, as it is or rearranged: for each of its dimensions, the index of every value."""

    name: str
    shape: tuple[int, ...]
    index: tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Side:
    """One side of a layer, or one dimension of a bare parameter: where channels are cut."""

    layer: str
    out: bool
    dim: int = 0


@dataclass(frozen=True)
class Division:
    """A place where the network's code gives one dimension of channels several, or takes parts of it.

    `atoms` are the channels by the dimensions that they have afterwards. One of these dimensions can get shorter;
    which, only a trial tells: `likely` comes first. `module` is the module whose code it is. `uneven` parts have no
    dimensions: they can get shorter only if the code says how.
    """

    atoms: torch.Tensor
    module: str
    uneven: bool = False
    likely: int | None = None

    def choices(self) -> list[int]:
        """Return the dimensions that may get shorter, the likeliest first."""
        sizes = self.atoms.shape
        return sorted(range(len(sizes)), key=lambda dim: (dim != self.likely, -sizes[dim], -dim))


@dataclass(frozen=True)
class Site:
    """An operation that computes channels from others, by its place among all such operations of a forward pass.

    `given` are the atoms of its input, `made` those of its output, each as thin as it varies. A `statistic` takes
    something of all channels together, such as their mean. `layer` is the one whose weights it uses, or the module.
    """

    kind: str
    layer: str
    given: tuple[torch.Tensor, ...]
    made: torch.Tensor
    forced: bool
    statistic: bool


@dataclass
class TraceState:
    """All that a trace learns."""

    atoms: Atoms = field(default_factory=Atoms)
    met: dict[Side, torch.Tensor] = field(default_factory=dict)
    written: dict[str, torch.Tensor] = field(default_factory=dict)
    bare: dict[str, torch.Tensor] = field(default_factory=dict)
    divisions: list[Division] = field(default_factory=list)
    touched: list[tuple[str, torch.Tensor]] = field(default_factory=list)
    sites: list[Site] = field(default_factory=list)
    rolled: list[torch.Tensor] = field(default_factory=list)
    ties: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)
    unknown: dict[str, str] = field(default_factory=dict)
    stack: list[str] = field(default_factory=list)
    names: dict[str, nn.Module] = field(default_factory=dict)
    _atoms: dict[Key, torch.Tensor] = field(default_factory=dict)
    _origins: dict[Key, Origin] = field(default_factory=dict)
    _written: dict[int, torch.Tensor] = field(default_factory=dict)
    _held: list[torch.Tensor] = field(default_factory=list)

    @property
    def module(self) -> str:
        """The innermost module whose code runs."""
        return self.stack[-1] if self.stack else ""

    def enter_parameters(self, network: nn.Module) -> None:
        """Note all parameters and buffers by name."""
        self.names = dict(network.named_modules())
        for name, tensor in (*_attributes(network), *network.named_buffers(), *network.named_parameters()):
            shape = tuple(tensor.shape)
            index = tuple(
                torch.arange(size).reshape([size if at == dim else 1 for at in range(len(shape))]).expand(shape)
                for dim, size in enumerate(shape)
            )
            self._origins[key(tensor)] = Origin(name, shape, index)
            self._held.append(tensor)

    def origin(self, tensor: object) -> Origin | None:
        """Return what parameter a tensor is, rearranged at most."""
        return self._origins.get(key(tensor)) if isinstance(tensor, torch.Tensor) else None

    def set_origin(self, tensor: torch.Tensor, origin: Origin) -> None:
        """Note that a tensor is a rearranged parameter."""
        self._origins[key(tensor)] = origin
        self._held.append(tensor)

    def known(self, tensor: object) -> bool:
        """Return whether anything is known of a tensor's channels."""
        if not isinstance(tensor, torch.Tensor):
            return False
        place = key(tensor)
        return place in self._atoms or place in self._origins or place[0] in self._written

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the atoms of a tensor's values, in its shape; `NONE` for a constant."""
        place = key(tensor)
        if place[0] in self._written:
            return self._written[place[0]].as_strided(place[2], place[3], place[1])
        if place in self._atoms:
            return self._atoms[place]
        if place in self._origins:
            return self._bare(self._origins[place])
        return torch.zeros((), dtype=torch.int64).expand(tensor.shape)

    def set(self, tensor: torch.Tensor, atoms: torch.Tensor) -> None:
        """Note the atoms of a tensor's values; any shape that expands to the tensor's."""
        place = key(tensor)
        self._origins.pop(place, None)
        if place[0] in self._written:
            self._written[place[0]].as_strided(place[2], place[3], place[1]).copy_(atoms.expand(tensor.shape))
        self._atoms[place] = atoms.expand(tensor.shape)
        self._held.append(tensor)

    def write(self, tensor: torch.Tensor, atoms: torch.Tensor) -> None:
        """Note that values of a tensor were written in place, also where it is a part of another."""
        whole = atoms.expand(tensor.shape)
        if self.known(tensor):
            before = self.of(tensor)
            if bool((self.atoms.classes(thin(before)) == self.atoms.classes(thin(whole))).all()):
                return  # what it was, as after an activation in place
        place = key(tensor)
        if place[0] not in self._written:
            self._written[place[0]] = self._flat(tensor)
        self._origins.pop(place, None)
        self._held.append(tensor)
        self._written[place[0]].as_strided(place[2], place[3], place[1]).copy_(whole)

    def _flat(self, tensor: torch.Tensor) -> torch.Tensor:
        """The atoms of a whole piece of memory, as far as tensors in it are known."""
        storage = tensor.untyped_storage()
        flat = torch.zeros(storage.nbytes() // tensor.element_size(), dtype=torch.int64)
        for (memory, offset, shape, stride), atoms in self._atoms.items():
            if memory == storage._cdata:
                flat.as_strided(shape, stride, offset).copy_(atoms)
        return flat

    def _bare(self, origin: Origin) -> torch.Tensor:
        """The atoms of a parameter that is used as it is, one for each value."""
        owned = self._owned(origin)
        if owned is not None:
            return owned[origin.index[0]]
        if origin.name not in self.bare:
            self.bare[origin.name] = self.atoms.new(math.prod(origin.shape)).reshape(origin.shape)
        first = int(self.bare[origin.name].flatten()[0]) if math.prod(origin.shape) else NONE
        place = torch.zeros((), dtype=torch.int64)
        for size, index in zip(origin.shape, origin.index, strict=True):
            place = place * size + index
        return place + first

    def _owned(self, origin: Origin) -> torch.Tensor | None:
        """The atoms of a layer's own bias or scale that is used by itself; None for other parameters."""
        owner = self.owner(origin.name)
        if owner is None or len(origin.shape) != 1:
            return None
        if isinstance(self.names[owner], nn.Linear | nn.modules.conv._ConvNd):
            return self.rows(owner, origin.shape[0])
        side = Side(owner, True)
        return self.met[side] if side in self.met else self.meet(side, self.atoms.new(origin.shape[0]))

    def bare_along(self, origin: Origin, dim: int) -> torch.Tensor:
        """Return one atom for each index of a bare parameter's dimension."""
        return self.along(self._bare(origin), dim)

    def meet(self, side: Side, atoms: torch.Tensor) -> torch.Tensor:
        """Note the atoms [width] that a side of a layer meets, and return the atom that stands for each."""
        before = self.met.get(side)
        if before is None:
            self.met[side] = atoms.clone()
        else:
            self.atoms.meet(before, atoms)
            self.met[side] = torch.where(before == NONE, atoms, before)
        return self.met[side]

    def rows(self, layer: str, count: int) -> torch.Tensor:
        """Return the atoms [count] of the channels that a layer writes."""
        if layer not in self.written:
            self.written[layer] = self.atoms.new(count)
            self.met[Side(layer, True)] = self.written[layer]
        return self.written[layer]

    def owner(self, name: str) -> str | None:
        """Return the layer that a parameter belongs to, where it is of a kind that is cut as a whole."""
        layer, _, last = name.rpartition(".")
        module = self.names.get(layer)
        return (
            layer if last in ("weight", "bias", "running_mean", "running_var") and isinstance(module, OWNERS) else None
        )

    def along(self, atoms: torch.Tensor, dim: int) -> torch.Tensor:
        """Return one atom for each index of a dimension; those that meet at one index become one class."""
        small = thin(atoms).movedim(dim, 0)
        rows = small.reshape(small.shape[0], -1)
        if rows.shape[0] == 1:
            rows = rows.expand(atoms.shape[dim], -1)
        first = rows.max(1).values
        if rows.shape[1] > 1:
            self.atoms.meet(first[:, None].expand_as(rows).contiguous(), rows)
        return first

    def pin(self, atoms: torch.Tensor, reason: str) -> None:
        """Say why these atoms cannot be removed."""
        for atom in torch.unique(atoms).tolist():
            if atom != NONE:
                self.atoms.pins.setdefault(atom, reason)


def _attributes(network: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Tensors that a module holds as a plain attribute, by name."""
    return [
        (f"{name}.{attribute}".lstrip("."), value)
        for name, module in network.named_modules()
        for attribute, value in vars(module).items()
        if isinstance(value, torch.Tensor)
    ]


def key(tensor: torch.Tensor) -> Key:
    """Return where a tensor lies in memory, and how."""
    # Where a dimension has a length of one, torch gives it whatever stride is at hand.
    strides = tuple(stride if size > 1 else 0 for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.untyped_storage()._cdata, int(tensor.storage_offset()), tuple(tensor.shape), strides
