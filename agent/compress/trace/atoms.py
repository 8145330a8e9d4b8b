"""Channels as numbers, and which of them are one.

Every channel that a layer writes gets a number of its own, an atom. Two atoms are the *same* where the network adds or
multiplies them value by value; they are *tied* where one cannot go without the other, as the equal parts of a split.
"""

from collections.abc import Iterable

import torch

NONE = 0
"""The number of a value that belongs to no channel, such as a constant or the zeros of a padding."""


class Atoms:
    """All atoms of a network, and their classes: union-find, the least atom of a class stands for it."""

    def __init__(self) -> None:
        self._parent = [NONE]
        self.pins: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._parent)

    def new(self, count: int, pin: str | None = None) -> torch.Tensor:
        """Return `count` new atoms, int64 [count]; with the reason `pin`, they can never be removed."""
        first = len(self._parent)
        self._parent.extend(range(first, first + count))
        if pin is not None:
            self.pins.update(dict.fromkeys(range(first, first + count), pin))
        return torch.arange(first, first + count)

    def top(self, atom: int) -> int:
        """Return the atom that stands for the class of `atom`."""
        parent = self._parent
        while parent[atom] != atom:
            parent[atom] = parent[parent[atom]]
            atom = parent[atom]
        return atom

    def join(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Make one class of the two classes of each pair."""
        for one, other in pairs:
            low, high = sorted((self.top(one), self.top(other)))
            self._parent[high] = low

    def meet(self, one: torch.Tensor, other: torch.Tensor) -> None:
        """Make one class of the atoms that meet at each place of two tensors of one shape; `NONE` meets nothing."""
        differ = (one != other) & (one != NONE) & (other != NONE)
        if differ.any():
            pairs = torch.unique(one[differ] * len(self._parent) + other[differ])
            found = ((pair // len(self._parent), pair % len(self._parent)) for pair in pairs.tolist())
            self.join(found)

    def classes(self, atoms: torch.Tensor) -> torch.Tensor:
        """Return the class of each atom, in the same shape."""
        each, where = torch.unique(atoms, return_inverse=True)
        return torch.tensor([self.top(atom) for atom in each.tolist()])[where].reshape(atoms.shape)

    def copy(self) -> "Atoms":
        """Return a copy; what is joined in it leaves this one alone."""
        copied = Atoms()
        copied._parent, copied.pins = self._parent.copy(), self.pins.copy()
        return copied


def compact(atoms: torch.Tensor) -> torch.Tensor:
    """Return the tensor without the repetitions of expanded dimensions, which keep a length of one."""
    for dim, (size, stride) in enumerate(zip(atoms.shape, atoms.stride(), strict=True)):
        if size > 1 and stride == 0:
            atoms = atoms.narrow(dim, 0, 1)
    return atoms


def varies(atoms: torch.Tensor, dim: int) -> bool:
    """Return whether the atoms differ along a dimension."""
    small = compact(atoms)
    return small.shape[dim] > 1 and bool((small != small.narrow(dim, 0, 1)).any())


def thin(atoms: torch.Tensor) -> torch.Tensor:
    """Return the tensor with a length of one in each dimension along which nothing differs."""
    small = compact(atoms)
    for dim in range(small.ndim):
        if small.shape[dim] > 1 and not bool((small != small.narrow(dim, 0, 1)).any()):
            small = small.narrow(dim, 0, 1)
    return small
