"""The tiny task, in trials and plans that measure for a moment: for tests of what happens around them."""

from tiny_task import TinyTask

from support.brief import measure_briefly

__all__ = ["TinyTask"]

measure_briefly()
