"""A second host on this machine: a network namespace with its own name, home and Python environment from the wheel."""

import contextlib
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from support.paths import ROOT


def run(*argv: str, **options: object) -> str:
    """Run a command to its end; its output, or an error that holds it."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr or done.stdout}"
    return str(done.stdout)


def build_wheel(folder: Path) -> Path:
    """A wheel of this tree, built from a copy of it and without looking for anything on an index."""
    tree = folder / "tree"
    for name in ("door", "agent", "objective", "infra"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree / name)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(tree))
    return next(folder.glob("prunefleet-*.whl"))


def environment_from(wheel: Path, folder: Path) -> Path:
    """A Python environment with the wheel installed; heavy packages are shared by path with the tests' own."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    site = Path(run(str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    options = ["--quiet", "--no-deps", "--no-index", "--ignore-installed"]  # a PYTHONPATH may hold another of us
    run(sys.executable, "-m", "pip", "--python", str(python), "install", *options, str(wheel))
    (site / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
    script = folder / "bin" / "wandb"
    script.write_text(f"#!{python}\nimport sys\nfrom wandb.cli.cli import cli\nsys.exit(cli())\n")
    script.chmod(0o755)
    return folder


@dataclass(frozen=True)
class Host:
    """A host in a namespace: `address` is where it sees us, `name` what it calls itself."""

    name: str
    address: str
    home: Path

    def command(self, line: str) -> list[str]:
        """The argument list that runs a shell line on this host as a user with nothing but a home and a path."""
        inside = ["env", "-i", f"HOME={self.home}", "PATH=/usr/local/bin:/usr/bin:/bin", "TERM=dumb"]
        named = f"hostname {self.name} && cd {self.home} && {line}"
        return ["ip", "netns", "exec", self.name, "unshare", "--uts", *inside, "sh", "-c", named]

    def start(self, line: str, log: Path) -> "subprocess.Popen[bytes]":
        """Start a shell line on this host, in a session of its own."""
        with log.open("wb") as out:
            return subprocess.Popen(self.command(line), stdout=out, stderr=out, start_new_session=True)


def _ip(*words: str) -> None:
    run("ip", *words)


def _free(first: int) -> int:
    """The first number from this one on, of 0 to 249, that no cable has."""
    numbers = [number % 250 for number in range(first, first + 250)]
    return next(number for number in numbers if not Path(f"/sys/class/net/pfa{number}").exists())


@contextlib.contextmanager
def second_host(label: str, home: Path) -> Iterator[Host]:
    """A namespace joined to this one by a cable of its own; it and all that runs in it end with the block.

    Its name and address are of this process alone: a test that was killed leaves its namespace.
    """
    name, number = f"{label}-{os.getpid()}", _free(os.getpid() % 250)
    ours, theirs = f"10.231.{number}.1", f"10.231.{number}.2"
    near, far = f"pfa{number}", f"pfb{number}"
    home.mkdir(parents=True)
    _ip("netns", "add", name)
    try:
        _ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", name)
        _ip("address", "add", f"{ours}/24", "dev", near)
        _ip("link", "set", near, "up")
        _ip("-n", name, "address", "add", f"{theirs}/24", "dev", far)
        _ip("-n", name, "link", "set", far, "up")
        _ip("-n", name, "link", "set", "lo", "up")
        yield Host(name, ours, home)
    finally:
        _end_all(name)
        subprocess.run(["ip", "link", "delete", near], capture_output=True, check=False)
        _ip("netns", "delete", name)


def _end_all(name: str) -> None:
    pids: Sequence[str] = run("ip", "netns", "pids", name).split()
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), 9)
