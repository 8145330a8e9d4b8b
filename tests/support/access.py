"""Two users on one hub, one of them with something of every kind, and requests by whoever is asked."""

import asyncio
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import httpx

from prunefleet.infra.dashboard.session import COOKIE
from prunefleet.infra.hub.artifacts.log import NewArtifact
from prunefleet.infra.hub.hub import Hub
from prunefleet.infra.hub.runs.runs import RunChange, StreamPost
from prunefleet.infra.hub.runs.sweeps import SweepChange
from prunefleet.infra.hub.store.database import many
from prunefleet.infra.hub.store.file_rows import FileOwner
from prunefleet.infra.hub.store.lines import Stream
from prunefleet.infra.hub.store.rows import UserRow
from prunefleet.infra.server import create_app
from prunefleet.infra.wire.graphql.ids import encode

from support.hub import SWEEP, basic

OTHER, ADMIN = "mallory", "local"


@dataclass(frozen=True)
class Target:
    """What a request is about: names and ids, of things that are there or of such that never were."""

    entity: str
    project: str
    run: str
    sweep: str
    agent: str
    collection: str
    portfolio: str
    client: str
    run_id: str
    sweep_id: str
    agent_id: str
    artifact_id: str
    manifest_id: str
    file_id: str
    sequence_id: str
    portfolio_id: str

    def hide(self, text: str) -> str:
        """The text with every name and id of this target replaced by what it stands for."""
        known = {field.name: str(getattr(self, field.name)) for field in fields(self)}
        for name, value in sorted(known.items(), key=lambda item: -len(item[1])):
            text = text.replace(value, f"<{name}>")
        return text


GHOST = Target(
    **{field.name: f"never-{field.name}" for field in fields(Target) if not field.name.endswith("_id")},
    run_id=encode("Run", 990001),
    sweep_id=encode("Sweep", 990002),
    agent_id=encode("Agent", 990003),
    artifact_id=encode("Artifact", 990004),
    manifest_id=encode("ArtifactManifest", 990005),
    file_id=encode("RunFile", 990006),
    sequence_id=encode("ArtifactSequence", 990007),
    portfolio_id=encode("ArtifactPortfolio", 990008),
)


class World:
    """A hub with an administrator and a user who owns nothing; owners come as they are asked for."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.app = create_app(hub, "admin-token")
        self.keys = {name: hub.auth.add_user(name, admin=name == ADMIN) for name in (ADMIN, OTHER)}

    def owner(self) -> Target:
        """A new user with something of every kind."""
        name = f"ann{len(self.keys)}x"
        self.keys[name] = self.hub.auth.add_user(name)
        return self.make(name)

    def user(self, name: str) -> UserRow:
        found = self.hub.auth.user_named(name)
        assert found is not None
        return found

    def make(self, name: str) -> Target:
        """Something of every kind, of that user, every text holding the user's name."""
        hub, user, project = self.hub, self.user(name), f"{name}-project"
        change = SweepChange(project=project, config_yaml=SWEEP, display_name=f"{name}-display")
        sweep = hub.create_sweep(user, change)
        agent = hub.register_agent(user, name, project, sweep.name, f"{name}-host")
        said = RunChange(project=project, name=f"{name}-run", host=f"{name}-host", notes=f"{name}-notes")
        run, _ = hub.begin_run(user, said)
        hub.begin_run(user, RunChange(project=project, name=f"{name}-run", config={f"{name}-key": {"value": 1}}))
        lines = {Stream.HISTORY: (0, [json.dumps({"_step": 0, f"{name}-metric": 1})]), Stream.CONSOLE: (0, [name])}
        hub.stream(name, project, run.name, StreamPost(lines, summary={f"{name}-summary": 1}))
        hub.files.keep(FileOwner.RUN, run.id, f"{name}.txt", hub.files.blobs.put([name.encode()]))
        artifact = self._artifact(user, project, run.name)
        link = hub.artifacts.link(user, artifact, (name, project, f"{name}-portfolio"), ["best"])
        row = hub.artifacts.artifact(artifact)
        hub.artifacts.use(run.id, artifact)
        return Target(
            entity=name,
            project=project,
            run=run.name,
            sweep=sweep.name,
            agent=agent.name,
            collection=row.collection.name,
            portfolio=link.collection.name,
            client=f"{name}-client",
            run_id=encode("Run", run.id),
            sweep_id=encode("Sweep", sweep.id),
            agent_id=encode("Agent", agent.id),
            artifact_id=encode("Artifact", artifact),
            manifest_id=encode("ArtifactManifest", artifact),
            file_id=encode("RunFile", hub.files.listed(run.id)[0].id),
            sequence_id=encode("ArtifactSequence", row.collection.id),
            portfolio_id=encode("ArtifactPortfolio", link.collection.id),
        )

    def _artifact(self, user: UserRow, project: str, run: str) -> int:
        name, known = user.username, self.hub.artifacts
        new = NewArtifact(name, project, f"{name}-model", "model", digest=name, run=run, client_id=f"{name}-client")
        artifact = known.create(user, new)
        blob = self.hub.files.blobs.put([f"{name}-weights".encode()])
        known.expect_files([(artifact.id, f"{name}.bin", blob.md5)])
        self.hub.files.keep(FileOwner.ARTIFACT, artifact.id, f"{name}.bin", blob)
        known.expect_manifest(artifact.id, "FULL", "", None)
        contents = {f"{name}.bin": {"digest": blob.md5, "size": blob.size}}
        manifest = {
            "version": 1,
            "storagePolicy": "wandb-storage-policy-v1",
            "storagePolicyConfig": {},
            "contents": contents,
        }
        stored = self.hub.files.blobs.put([json.dumps(manifest).encode()])
        self.hub.files.keep(FileOwner.MANIFEST, artifact.id, "wandb_manifest.json", stored)
        return known.commit(artifact.id).id

    def open_artifact(self, name: str) -> str:
        """The id of an artifact of the user's that still waits for its files."""
        new = NewArtifact(name, f"{name}-project", f"{name}-open", "model", digest=f"{name}-open")
        return encode("Artifact", self.hub.artifacts.create(self.user(name), new).id)

    def request(self, who: str | None, method: str, path: str, **more: Any) -> httpx.Response:
        """One request of that user, by key and by cookie."""
        headers: Mapping[str, str] = {}
        if who is not None:
            cookie = f"{COOKIE}={self.hub.auth.session_of(who, 600)}"
            headers = {"Authorization": basic(self.keys[who]), "Cookie": cookie, "Origin": "http://hub.example:8080"}

        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://hub.example:8080") as http:
                return await http.request(method, path, headers={**headers, **more.pop("headers", {})}, **more)

        return asyncio.run(send())

    def ask(self, who: str, text: str, variables: Mapping[str, object] | None = None) -> httpx.Response:
        """One GraphQL operation of that user."""
        return self.request(who, "POST", "/graphql", json={"query": text, "variables": variables or {}})

    def contents(self) -> dict[str, list[dict[str, Any]]]:
        """Every row of every table."""
        with self.hub.store.read() as connection:
            tables = [row["name"] for row in many(connection, "SELECT name FROM sqlite_master WHERE type = 'table'")]
            return {name: [dict(row) for row in many(connection, f'SELECT * FROM "{name}"')] for name in tables}


def artifact_path(target: Target) -> str:
    """Where the client fetches the one file of the target's artifact."""
    digest = hashlib.md5(f"{target.entity}-weights".encode()).hexdigest()
    place = f"{target.entity}/{target.project}/{target.collection}"
    return f"/artifactsV2/default/{place}/{target.artifact_id}/{digest}/w.bin"
