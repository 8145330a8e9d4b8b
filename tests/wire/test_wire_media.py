"""What runs save and log as files, through the unmodified wandb client."""

import json
from pathlib import Path
from typing import Any

import pytest

from support.clients import Client
from support.hub import HubProcess

CODE = """
import json, pathlib, numpy, wandb
def show(**what):
    print("SHOWN " + json.dumps(what))
pathlib.Path("note.md").write_text("# saved")
pathlib.Path("later.txt").write_text("added later")
with wandb.init(project="demo", settings=wandb.Settings(console="off", x_disable_stats=True, silent=True)) as run:
    picture = wandb.Image(numpy.zeros((2, 2, 3), dtype="uint8"), caption="black")
    run.log({"image": picture, "page": wandb.Html("<b>bold</b>"), "bars": wandb.Histogram([1, 2, 2])})
    run.log({"table": wandb.Table(columns=["n", "picture"], data=[[1, picture]])})
    run.save("./note.md", policy="now")
run = wandb.Api().run(f"demo/{run.id}")
show(all=[f.name for f in run.files(per_page=2)], count=len(run.files()))
media = {f.name.split("/")[1]: f for f in run.files() if f.name.startswith("media/")}
show(media={kind: [file.name.rpartition(".")[2], file.mimetype] for kind, file in media.items()})
show(html="<b>bold</b>" in media["html"].download(root="down").read())
show(logged=[{key: row[key]["_type"] for key in row if isinstance(row[key], dict)} for row in run.scan_history()])
table = next(a for a in run.logged_artifacts() if a.type == "run_table").get("table")
show(table=[table.columns, table.data[0][0], table.data[0][1].to_data_array()[0][0]])
show(named=[f.name for f in run.files(names=["note.md", "nothing"])])
show(text=run.file("./note.md").download(root="down").read())
show(config="_wandb" in run.file("config.yaml").download(root="down").read())
added = run.upload_file("later.txt")
show(added=[added.name, added.size], state=run.state)
pathlib.Path("later.txt").write_text("replaced")
show(again=run.upload_file("later.txt").download(replace=True).read())
run.files(names=["later.txt"])[0].delete()
show(left=[f.name for f in run.files(names=["later.txt"])])
"""


def shown(output: str) -> dict[str, Any]:
    lines = [line.removeprefix("SHOWN ") for line in output.splitlines() if line.startswith("SHOWN ")]
    return {key: value for line in lines for key, value in json.loads(line).items()}


@pytest.mark.both
def test_a_run_s_files_through_the_client(tmp_path: Path, wandb_client: Client) -> None:
    """Media and saved files are listed, selected, downloaded, added to and deleted; tables keep their media."""
    with HubProcess(tmp_path, client=wandb_client) as hub:
        said = shown(hub.python(CODE))
    standard = {"config.yaml", "note.md", "requirements.txt", "wandb-metadata.json", "wandb-summary.json"}
    assert standard < set(said["all"])
    assert said["count"] == len(said["all"])
    assert said["media"]["images"] == ["png", "image/png"]
    assert said["media"]["html"] == ["html", "text/html"]
    assert said["media"]["table"] == ["json", "application/json"]
    assert said["html"] is True
    assert said["logged"] == [
        {"image": "image-file", "page": "html-file", "bars": "histogram"},
        {"table": "table-file"},
    ]
    assert said["table"] == [["n", "picture"], 1, [0, 0, 0]]
    assert said["named"] == ["note.md"]
    assert (said["text"], said["config"]) == ("# saved", True)
    assert (said["added"], said["state"]) == (["later.txt", 11], "finished")
    assert (said["again"], said["left"]) == ("replaced", [])
