"""Values made when they are first asked for."""

from dataclasses import dataclass

from prunefleet.infra.hub.store.lazy import lazy


@dataclass(frozen=True)
class Square:
    side: int

    @lazy
    def area(self) -> int:
        """Side times side."""
        made.append(self.side)
        return self.side**2


made: list[int] = []


def test_a_lazy_value_is_made_once_for_each_instance() -> None:
    """It is made when first asked for and kept, also by a frozen instance; the class shows what it is."""
    made.clear()
    three, four = Square(3), Square(4)
    assert not made
    assert (three.area, three.area, four.area) == (9, 9, 16)
    assert made == [3, 4]
    assert Square.area.__doc__ == "Side times side."
