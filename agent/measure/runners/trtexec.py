"""TensorRT's `trtexec` as a program that prints samples.

`python -m prunefleet.agent.measure.runners.trtexec --onnx FILE --calls N`

The worked example of PRUNEFLEET_MEASURE_COMMAND (docs/measurement.md). It needs Python and trtexec, nothing else. The
engine is built once and kept beside the network. Source: NVIDIA TensorRT, documentation of trtexec and of the file
that its option `--exportTimes` writes (samples/common/sampleReporting.cpp).
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PRECISION_FLAGS = {"f32": ["--noTF32"], "default": [], "f16": ["--fp16"], "bf16": ["--bf16"], "int8": ["--int8"]}
THROUGHPUT_STREAMS, THROUGHPUT_S = 2, 2
WARM_UP_CALLS = 20
"""As in `prunefleet.agent.measure.runners.base`, which is not imported: this file runs where there is Python alone."""
THROUGHPUT = re.compile(r"Throughput:\s*([0-9.]+)\s*qps")


def main(arguments: Sequence[str] | None = None) -> int:
    """Time the network and print one line of JSON; returns trtexec's exit code where it fails."""
    options = _parser().parse_args(arguments)
    try:
        found = throughput(options) if options.what == "throughput" else latency(options)
    except subprocess.CalledProcessError as error:
        print(_last_error(error.stdout), file=sys.stderr)
        return error.returncode
    except FileNotFoundError:
        print(f"{options.trtexec} is not there: name it with --trtexec", file=sys.stderr)
        return 127
    print(json.dumps(found))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m prunefleet.agent.measure.runners.trtexec", description=__doc__)
    parser.add_argument("--onnx", type=Path, required=True)
    parser.add_argument("--calls", type=int, required=True)
    parser.add_argument("--warm-up", type=int, default=WARM_UP_CALLS)
    parser.add_argument("--precision", choices=sorted(PRECISION_FLAGS), default="f32")
    parser.add_argument("--what", choices=("latency", "throughput"), default="latency")
    parser.add_argument("--trtexec", default="trtexec")
    return parser


def latency(options: argparse.Namespace) -> dict[str, Any]:
    """One stream, one inference at a time: `samples_ms` of the calls after the warm-up, `precision`."""
    with tempfile.TemporaryDirectory() as folder:
        times = Path(folder) / "times.json"
        iterations = options.calls + options.warm_up
        # All iterations are kept by some versions and those after --warmUp by others: so it is 0, and we cut ourselves.
        how = ["--warmUp=0", "--duration=0", f"--iterations={iterations}", "--infStreams=1", "--useSpinWait"]
        _trtexec(options, [*how, f"--exportTimes={times}"])
        found = samples(json.loads(times.read_text()))[options.warm_up :]
    return {"samples_ms": found, "precision": options.precision}


def throughput(options: argparse.Namespace) -> dict[str, Any]:
    """Several streams at once: `throughput_fps`, counted by trtexec."""
    printed = _trtexec(options, [f"--infStreams={THROUGHPUT_STREAMS}", f"--duration={THROUGHPUT_S}"])
    found = THROUGHPUT.search(printed)
    return {"throughput_fps": float(found.group(1))} if found else {}


def samples(entries: Sequence[dict[str, float]]) -> list[float]:
    """Milliseconds of each inference, copies to and from the GPU included, from what `--exportTimes` wrote."""
    return [float(entry["latencyMs"]) for entry in entries]


def _trtexec(options: argparse.Namespace, how: Sequence[str]) -> str:
    """What trtexec prints; raises `CalledProcessError` where it fails.

    The engine is built by the first run, and again where it is older than the network or another TensorRT's.
    """
    engine = options.onnx.with_name(f"{options.onnx.stem}-{options.precision}.engine")
    if engine.exists() and engine.stat().st_mtime >= options.onnx.stat().st_mtime:
        try:
            return _run([options.trtexec, f"--loadEngine={engine}", *how])
        except subprocess.CalledProcessError:
            engine.unlink()
    build = [f"--onnx={options.onnx}", f"--saveEngine={engine}", *PRECISION_FLAGS[options.precision]]
    return _run([options.trtexec, *build, *how])


def _run(argv: Sequence[str]) -> str:
    return subprocess.run(argv, check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout


def _last_error(printed: str) -> str:
    """trtexec marks errors with [E]; else its last line."""
    lines = printed.strip().splitlines() or ["trtexec failed without a word"]
    return next((line for line in reversed(lines) if "[E]" in line), lines[-1])


if __name__ == "__main__":
    sys.exit(main())
