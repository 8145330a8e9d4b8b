"""docs/fleet.md as its reader follows it: every line pasted, in its order, on five machines in network namespaces."""

import json
import re
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from prunefleet.infra.hub.store.integrity import opened

from studies.storm.fleet import SWEEP
from studies.storm.net import Machine, machines
from support.hub import basic
from support.page import Block, blocks, commands
from support.paths import DOCS, ROOT, TESTS
from support.wait import wait_for

pytestmark = [pytest.mark.netns, pytest.mark.slow]
EXAMPLE = "192.0.2.10"
TRAINING, BOARDS = ("train1", "train2"), ("edge1", "edge2", "edge3")
TORCH = ("torch", "torchvision", "torch_pruning", "torchgen", "functorch", "nncf", "timm")
OURS = ("prunefleet", "__editable__")
STAYS = {"up", "join", "agent"}  # commands that go on in their terminal
LEARNT = {  # what a line printed, by the word that stands for it from then on
    "device add board1": "QUEUE1",
    "device add board2": "QUEUE2",
    "wandb sweep": "BOTH",
}
ASK = """
import sys, urllib.error, urllib.request
asked = urllib.request.Request(sys.argv[1], headers={"Authorization": sys.argv[2]})
try:
    print(urllib.request.urlopen(asked).read().decode())
except urllib.error.HTTPError as error:
    print(error.code)
"""
CLONE = "clone"
TRIALS = 2
SMALLER = {
    "enumerate((1, WIDTH, WIDTH), start=1)": "enumerate((1,), start=1)",
    "nn.Linear(WIDTH, 4)": "nn.Linear(16 * WIDTH, 4)",
}


@dataclass
class Reader:
    """Who pastes the lines: what earlier ones printed, and the variables set in each machine's terminals."""

    machines: dict[str, Machine]
    words: dict[str, str]
    exports: dict[str, list[str]] = field(default_factory=dict)
    printed: str = ""

    def paste(self, block: Block) -> None:
        """Run a block's lines where the page says."""
        assert block.machine in self.machines, block
        for line in block.lines:
            self._paste(block.machine, line)

    def _paste(self, label: str, line: str) -> None:
        if "…" in line:
            line = self._as_printed(line)
        for word, value in self.words.items():
            line = re.sub(rf"\b{re.escape(word)}\b", value, line)
        machine = self.machines[label]
        if line.startswith("export "):
            self.exports.setdefault(label, []).append(line)
            return
        before = [f"cd {CLONE}"] if label == "train1" else []
        whole = "; ".join([*before, *self.exports.get(label, ()), line])
        if any(words[0] in STAYS for words in commands(line)):
            machine.start(f"sh -c {shlex.quote(whole)}", "terminal.log")
            return
        said = machine.say(f"sh -c {shlex.quote(whole + ' 2>&1')}")
        with (machine.home / "said.log").open("a") as log:
            log.write(f"$ {line}\n{said}")
        self.printed = said
        for beginning, word in LEARNT.items():
            if beginning in line:
                self.words[word] = re.findall(r"local/prunefleet/(\w+)", said)[-1]

    def _as_printed(self, line: str) -> str:
        """The line that `invite` has just printed, or its end, which the page shows with its own parts left out."""
        shown = line.replace(EXAMPLE, self.words[EXAMPLE])
        printed = self.printed.strip().splitlines()[-1]
        same = re.search(rf"(?:^|&& ){re.escape(shown).replace('…', '([^ ]+)')}$", printed)
        assert same, (shown, printed)
        return same[0].removeprefix("&& ")

    def ask(self, path: str, key: str | None = None) -> Any:
        """What the hub answers, to its user or to another key."""
        url = f"http://{self.words[EXAMPLE]}:8765{path}"
        line = f"python3 -c {shlex.quote(ASK)} {url} {shlex.quote(basic(key or self.words['KEY']))}"
        return json.loads(self.machines["train1"].say(line))

    def agents(self, sweep: str) -> list[dict[str, Any]]:
        """The agents of a sweep by the word that the page has for it."""
        return list(self.ask(f"/local/prunefleet/sweeps/{self.words[sweep]}/agents.json")["agents"])

    def joined(self, label: str, sweep: str) -> bool:
        """Whether an agent of that machine is on the sweep's page."""
        return any(agent["host"] == self.machines[label].name for agent in self.agents(sweep))

    def logs(self) -> str:
        """What stands in the terminals."""
        told = [(label, log) for label, machine in self.machines.items() for log in sorted(machine.home.glob("*.log"))]
        return "\n".join(f"--- {label} {log.name}\n{log.read_text(errors='replace')[-3000:]}" for label, log in told)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """Five new machines, each with a home, Python, and the packages that an index would give it; one has a clone."""
    sites = {"train": site(tmp_path / "train", ()), "edge": site(tmp_path / "edge", TORCH)}
    tools(tmp_path / "tools")
    with machines(tmp_path / "machines", (*TRAINING, *BOARDS)) as every:
        by_label = dict(zip((*TRAINING, *BOARDS), every, strict=True))
        for label, machine in by_label.items():
            machine.env = environment(machine, tmp_path / "tools", sites["edge" if label in BOARDS else "train"])
        clone(by_label["train1"].home / CLONE)
        names = {label: machine.name for label, machine in by_label.items()}
        made = Reader(by_label, {EXAMPLE: by_label["train1"].address, "ENTITY": "local", **names})
        try:
            yield made
        finally:
            print(made.logs())


def site(folder: Path, without: tuple[str, ...]) -> Path:
    """The packages of the tests' environment but these and our own, as pip would have found them on an index."""
    folder.mkdir()
    for package in Path(sysconfig.get_path("purelib")).iterdir():
        name = package.name.partition("-")[0].lower()
        if name not in (*without, "pip") and not name.startswith(OURS) and package.suffix != ".pth":
            (folder / package.name).symlink_to(package)
    return folder


def tools(folder: Path) -> None:
    """The commands of packages that are not installed where pip has found them, and no systemd."""
    folder.mkdir()
    wandb = "#!/usr/bin/env python3\nimport sys\nfrom wandb.cli.cli import cli\nsys.exit(cli())\n"
    for name, text in (("wandb", wandb), ("systemctl", "#!/bin/sh\nexit 1\n")):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)


def environment(machine: Machine, commands: Path, packages: Path) -> dict[str, str]:
    """A user's environment on a machine without the internet."""
    python = Path(sys.base_prefix) / "bin"
    return {
        "PATH": f"{commands}:{python}:/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHONPATH": str(packages),
        "TMPDIR": str(machine.home / "tmp"),
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip's word for: without
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "WANDB_ERROR_REPORTING": "false",
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
    }


def clone(folder: Path) -> None:
    """The project's tree, with a small task and a small sweep in place of the demonstration's."""
    for name in ("door", "agent", "objective", "infra"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    task = (TESTS / "tiny_task.py").read_text()
    for old, new in SMALLER.items():
        assert old in task
        task = task.replace(old, new)
    (folder / "tiny_task.py").write_text(task)
    own = {name: value for name, value in SWEEP["parameters"].items() if name not in ("measure", "ratio")}
    own |= {"task": {"value": "tiny_task:TinyTask"}, "upload": {"value": "all"}}
    own["measure"] = {"parameters": {"device": {"value": "local"}, "precision": {"value": "f32"}}}
    (folder / "sweep.yaml").write_text(yaml.safe_dump({**SWEEP, "run_cap": TRIALS, "parameters": own}))


def sections() -> dict[str, list[Block]]:
    """The page's blocks by their section."""
    found: dict[str, list[Block]] = {}
    for block in blocks((DOCS / "fleet.md").read_text()):
        found.setdefault(block.section, []).append(block)
    return found


@pytest.mark.timeout(1500)
def test_the_page_s_lines_make_a_fleet_of_five(reader: Reader) -> None:
    """Each machine is on the hub within seconds, a trial is measured on both devices, and who left is refused."""
    first, second, board, twin, unlike, both, leaving = sections().values()
    up = reader.machines["train1"].home / "terminal.log"
    reader.paste(first[0])
    told = wait_for(lambda: re.search(r"KEY=(\w+)\n(?:.*\n)*?.*local/prunefleet/(\w+)\n", up.read_text()), 300, 0.5)
    reader.words |= {"KEY": told[1], "SWEEP": told[2]}
    reader.paste(first[1])
    for section, label, sweep in ((second, "train2", "SWEEP"), (board, "edge1", "QUEUE1"), (twin, "edge2", "QUEUE1")):
        paste(reader, section, label, sweep)
    paste(reader, unlike, "edge3", "QUEUE2")
    paste(reader, both, "train2", "BOTH")
    wait_for(lambda: reader.joined("train1", "BOTH"), 120, 0.5)
    wait_for(lambda: measured(reader), 300, 1)

    reader.paste(leaving[0])
    assert reader.machines["train2"].name in reader.printed
    for block, sweep in ((leaving[1], "QUEUE1"), (leaving[2], "SWEEP")):
        home = reader.machines[block.machine].home
        kept = home / ".config" / "prunefleet" / f"{reader.words[sweep]}.env"
        key = re.findall(r"WANDB_API_KEY=(\w+)", kept.read_text())[0]
        page = f"/local/prunefleet/sweeps/{reader.words[sweep]}/agents.json"
        assert "agents" in reader.ask(page, key)
        reader.paste(block)
        assert "Left. Its key is revoked." in reader.printed
        assert not kept.exists() and reader.ask(page, key) == 401


def paste(reader: Reader, section: list[Block], label: str, sweep: str) -> None:
    """Follow a section at whose end that machine works for that sweep."""
    for block in section:
        reader.paste(block)
    joined = reader.machines[label].home / "terminal.log"
    wait_for(lambda: f"Joined local/prunefleet/{reader.words[sweep]}" in joined.read_text(), 300, 0.2)
    wait_for(lambda: reader.joined(label, sweep), 30, 0.2)


def measured(reader: Reader) -> bool:
    """Whether a trial of the last sweep was scored on both devices."""
    sql = "SELECT run.summary FROM run JOIN sweep ON sweep.id = run.sweep_id WHERE sweep.name = ?"
    with opened(reader.machines["train1"].home / CLONE / ".prunefleet" / "hub") as hub:
        summaries = [json.loads(row[0] or "{}") for row in hub.execute(sql, (reader.words["BOTH"],))]
    scored = [summary for summary in summaries if summary.get("outcome") == "scored"]
    return any(set(summary["devices"]) == {"board1", "board2"} for summary in scored)
