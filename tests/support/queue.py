"""A device elsewhere whose queue is in this process: what is asked of it is measured at once, on this host."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from prunefleet.agent.commands.measure import measured
from prunefleet.agent.host.progress import StageWatch
from prunefleet.agent.measure.remote.device_queue import Asked
from prunefleet.agent.measure.remote.elsewhere import Elsewhere
from prunefleet.objective.devices import MeasurementRequest

Reply = Callable[[MeasurementRequest, int], Asked]


class Queue:
    """A device's queue whose runs end as `reply` says, which a request and a count of looks is given."""

    project, name, path, how = "e/p", "s", "e/p/s", "wandb agent e/p/s"

    def __init__(self, folder: Path, reply: Reply | None = None) -> None:
        self.folder, self.reply = folder, reply or self.served
        self.requests: list[MeasurementRequest] = []
        self.avoided: list[list[str]] = []
        self.looks, self.lose = 0, 0

    def asked(self, key: str) -> list[Asked]:
        self.looks += 1
        return [self.reply(each, number) for number, each in enumerate(self.requests) if each.key == key]

    def said(self) -> list[Asked]:
        found = [self.reply(each, number) for number, each in reversed(list(enumerate(self.requests)))]
        return [each for each in found if each.answered]

    def enqueue(self, request: MeasurementRequest, publisher: object, avoid: Sequence[str] = ()) -> str:
        self.requests.append(request)
        self.avoided.append(list(avoid))
        if self.lose:
            self.lose -= 1
            raise ConnectionError("the answer was lost")
        return f"run{len(self.requests) - 1}"

    def holds(self, sha256: str) -> bool:
        return (self.folder / f"{sha256}.xml").exists()

    def offer(self, name: str, kind: str, versions: dict[str, dict[str, Path]]) -> None:
        for sha256, files in versions.items():
            assert not self.holds(sha256)
            for inside, file in files.items():
                (self.folder / f"{sha256}{Path(inside).suffix}").write_bytes(file.read_bytes())

    def served(self, request: MeasurementRequest, number: int) -> Asked:
        document = self.folder / f"answer{number}.json"
        if not document.exists():
            samples = self.folder / f"samples{number}.json.gz"
            answer = measured(request, lambda sha256: self.folder / f"{sha256}.xml", samples, StageWatch())
            document.write_text(json.dumps(answer.to_json()))
        return Asked(f"run{number}", "finished", {"answer": json.loads(document.read_text())})

    def samples(self, run: str, folder: Path, version: str = "v0") -> Path:
        return self.folder / f"samples{run.removeprefix('run')}.json.gz"


def there(queue: Queue, **more: object) -> Elsewhere:
    return Elsewhere(queue, queue, note=lambda text: None, **more)  # type: ignore[arg-type]
