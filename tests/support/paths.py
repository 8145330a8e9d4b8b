"""Where the tree's folders are, however deep the file lies that asks."""

from pathlib import Path

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
DOCS = ROOT / "docs"
RESULTS = DOCS / "results"
