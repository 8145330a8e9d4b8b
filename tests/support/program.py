"""A program such as a user would write for PRUNEFLEET_MEASURE_COMMAND: it times an IR with OpenVINO, prints JSON."""

import argparse
import json
import sys
import time

sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
import numpy as np  # noqa: E402
import openvino as ov  # noqa: E402

parser = argparse.ArgumentParser()
for option in ("--ir", "--calls", "--warm-up", "--precision", "--threads", "--what"):
    parser.add_argument(option, required=True)
asked = parser.parse_args()
options = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": int(asked.threads)}
compiled = ov.Core().compile_model(asked.ir, "CPU", options)
request = compiled.create_infer_request()
request.set_input_tensor(ov.Tensor(np.zeros(compiled.input(0).shape, np.float32)))


def call() -> float:
    began = time.perf_counter()
    request.infer()
    return 1e3 * (time.perf_counter() - began)


warm_up = [call() for _ in range(int(asked.warm_up))]
if asked.what == "latency":
    print(json.dumps({"samples_ms": [call() for _ in range(int(asked.calls))], "precision": "f32"}))
else:
    queue, began = ov.AsyncInferQueue(compiled, 4), time.perf_counter()
    for _ in range(200):
        queue.start_async({0: np.zeros(compiled.input(0).shape, np.float32)})
    queue.wait_all()
    print(json.dumps({"throughput_fps": 200 / (time.perf_counter() - began)}))
