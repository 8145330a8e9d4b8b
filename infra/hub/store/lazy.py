"""Values made when they are first asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

T = TypeVar("T")


class lazy(Generic[T]):  # noqa: N801 - written like property
    """`functools.cached_property` without its lock, which took a tenth of a long page's time (Python 3.12 has none).

    Two threads may then both make the value: for values made of frozen ones that is the same twice.
    """

    def __init__(self, make: Callable[[Any], T]) -> None:
        self.func, self._name = make, ""
        self.__doc__ = make.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> lazy[T]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: object | None, owner: type) -> T | lazy[T]:
        if instance is None:
            return self
        value = instance.__dict__[self._name] = self.func(instance)  # found there from now on
        return value
