"""The code of a task that is the user's own: which files it is made of, their hash, and the archive that travels.

What is code is read from the sources, without running them: the task's module and every module beside it that it
imports, wherever the `import` stands, and what these import in turn. So a host can say what it has before it runs it.
"""

import ast
import contextlib
import hashlib
import importlib
import importlib.machinery
import io
import sys
import sysconfig
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

from prunefleet.objective.errors import BadInput

MIB = 2**20
LIMIT = 4 * MIB
OWN = ("prunefleet",)
MORE = "CODE_FILES"
"""The name in a module under which it lists files that go along: patterns below the module's folder."""
INSTALLED = ("site-packages", "dist-packages")
ARCHIVE = "code.zip"
COMPILED = "__pycache__"
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # an archive's bytes tell no time


@dataclass(frozen=True)
class Code:
    """Files by their name below the folder that the task's module was found in, with `/` between its parts."""

    files: Mapping[str, bytes]

    def __post_init__(self) -> None:
        size = sum(map(len, self.files.values()))
        if size > LIMIT:
            largest = max(self.files, key=lambda name: len(self.files[name]))
            remedy = f"at most {LIMIT // MIB} MiB of code and {MORE} travel: keep data below PRUNEFLEET_DATA"
            raise BadInput("code of the task", f"{size / MIB:.1f} MiB, most in {largest}", remedy)

    @cached_property
    def sha256(self) -> str:
        """Hash of all names and contents, whatever their order, times and permissions."""
        total = hashlib.sha256()
        for name in sorted(self.files):
            for part in (name.encode(), self.files[name]):
                total.update(f"{len(part)}:".encode() + part)
        return total.hexdigest()

    def described(self) -> str:
        """The files in a few words."""
        names = sorted(self.files)
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        return f"{', '.join(names[:5])}{more} ({sum(map(len, self.files.values())) / 1024:.1f} KiB)"

    def packed(self) -> bytes:
        """An archive of the files: the same bytes for the same files."""
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            for name in sorted(self.files):
                archive.writestr(zipfile.ZipInfo(name, LONG_AGO), self.files[name], zipfile.ZIP_DEFLATED)
        return content.getvalue()

    @classmethod
    def unpacked(cls, content: bytes) -> "Code":
        """The files of an archive. Raises `BadInput` for one that is damaged, too large, or has names that climb."""
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                entries = archive.infolist()
                if sum(entry.file_size for entry in entries) > LIMIT:
                    raise BadInput("code", f"more than {LIMIT // MIB} MiB", "plan the sweep again, with less code")
                files = {_safe(entry.filename): archive.read(entry) for entry in entries}
        except BadInput:
            raise
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
            raise BadInput("code", "a damaged archive", f"run `prunefleet plan` again: {error}") from error
        if len(files) != len(entries):
            raise BadInput("code", "an archive with a name twice", "run `prunefleet plan` again")
        return cls(files)

    def is_in(self, folder: Path) -> bool:
        """Whether a folder has these files with these contents."""
        paths = [(folder / name, content) for name, content in self.files.items()]
        return all(path.is_file() and path.read_bytes() == content for path, content in paths)

    def write(self, folder: Path) -> None:
        """Put the files into a folder."""
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def _safe(name: str) -> str:
    """The name of a file below a folder; raises `BadInput` for any other."""
    parts = name.split("/")
    if any(part in ("", ".", "..", COMPILED) for part in parts) or "\\" in name:
        raise BadInput("code", name, "run `prunefleet plan` again: this is no name below the code's folder")
    return name


def code_of(module: str) -> Code | None:
    """The user's code that `module` is made of, as Python would find it from here; None where it is no such code.

    Nothing is imported. Installed packages and this one's own modules are on every host by other means. Raises
    `BadInput` where there is too much, or where CODE_FILES names what cannot go along.
    """
    importlib.invalidate_caches()  # a file may have come a moment ago
    root = _root(module)
    return None if root is None else _collected(module, root)


def _root(module: str) -> Path | None:
    """The folder that the module's topmost package is in; None where that is not the user's."""
    first, *rest = module.split(".")
    if not first:
        return None
    spec = importlib.machinery.PathFinder.find_spec(first, [*sys.path, str(Path.cwd())])
    if spec is None:
        return None
    places = spec.submodule_search_locations or [spec.origin or ""]
    roots = [Path(place).absolute().parent for place in places]
    found = next((root for root in roots if _file(root, module)), roots[0]) if rest else roots[0]
    return found if _users(module, found) else None


def _users(module: str, root: Path) -> bool:
    first = module.partition(".")[0]
    standard = Path(sysconfig.get_path("stdlib"))
    return first not in OWN and not set(INSTALLED) & set(root.parts) and not root.is_relative_to(standard)


def _file(root: Path, module: str) -> Path | None:
    """The source of a module below `root`."""
    base = root.joinpath(*module.split("."))
    return next((path for path in (base / "__init__.py", base.with_name(f"{base.name}.py")) if path.is_file()), None)


def _collected(module: str, root: Path) -> Code | None:
    walk = _ImportWalk(root, [module])
    while walk.todo:
        walk.follow(walk.todo.pop())
    return Code(walk.files) if walk.files else None


@dataclass
class _ImportWalk:
    """Goes from module to module by what they import, below `root` alone."""

    root: Path
    todo: list[str]
    files: dict[str, bytes] = field(default_factory=dict)

    def follow(self, module: str) -> None:
        """Take the module's file and those of the packages it is in."""
        parts = module.split(".")
        if parts[0] in sys.stdlib_module_names or not _file(self.root, module) or _root(module) != self.root:
            return  # what Python finds elsewhere, such as an installed package, is not the file beside the task
        for count in range(1, len(parts) + 1):
            if path := _file(self.root, ".".join(parts[:count])):
                self._take(path)

    def _take(self, path: Path) -> None:
        """Take one file, and note what it imports where it is a source."""
        name = path.relative_to(self.root).as_posix()
        if name in self.files:
            return
        content = path.read_bytes()
        self.files[name] = content
        if path.suffix == ".py":
            content = content.replace(b"\r\n", b"\n")  # the same program, wherever it was checked out
            self.files[name] = content
            with contextlib.suppress(SyntaxError):  # whoever imports it will hear of it
                self._look_into(ast.parse(content), path, name)

    def _look_into(self, tree: ast.Module, path: Path, name: str) -> None:
        self.todo += _imported(tree, name.split("/")[:-1])
        for more in _more(tree, path):
            self._take(more)


def _imported(tree: ast.Module, package: list[str]) -> Iterator[str]:
    """What a source in `package` imports: modules, and names in them, which may be modules too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            if base:
                yield base
            yield from (f"{base}.{each.name}" if base else each.name for each in node.names)


def _more(tree: ast.Module, path: Path) -> Iterator[Path]:
    """The files that a source names in CODE_FILES."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == MORE for to in node.targets):
            try:
                patterns = ast.literal_eval(node.value)
            except ValueError:
                patterns = None
            if not isinstance(patterns, tuple | list) or not all(isinstance(each, str) for each in patterns):
                raise BadInput(f"{MORE} of {path.name}", ast.unparse(node.value), 'write names, as in ("labels.json",)')
            for pattern in patterns:
                yield from _matching(pattern, path)


def _matching(pattern: str, path: Path) -> list[Path]:
    climbs = PurePosixPath(pattern).is_absolute() or ".." in PurePosixPath(pattern).parts or not pattern
    found = [] if climbs else [each for each in path.parent.glob(pattern) if each.is_file()]
    found = [each for each in found if COMPILED not in each.parts]
    if not found:
        raise BadInput(f"{MORE} of {path.name}", pattern, "name files that are there, in its folder or below")
    return found
