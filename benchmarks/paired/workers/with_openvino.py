"""OpenVINO: the product, and LoRA beside it, as one graph. The weight is a constant, so it may pack it."""
import functools

from serve import Refused, serve, threads, timed

import numpy as np
import openvino
from openvino import opset13 as ops

random = np.random.default_rng(0)
core = openvino.Core()


def constant(*shape):
    return ops.constant(random.uniform(-0.05, 0.05, shape).astype(np.float32))


def prepare(job):
    if job.get("double"):
        raise Refused("it computes in f32")
    x = ops.parameter([job["n"], job["in"]], np.float32)
    y = ops.matmul(x, constant(job["out"], job["in"]), False, True)
    if job["operation"] == "lora":
        u = ops.matmul(x, constant(job["r"], job["in"]), False, True)
        y = ops.add(y, ops.matmul(u, constant(job["out"], job["r"]), False, True))
    elif job["operation"] != "product":
        raise Refused("it does not do that")
    compiled = core.compile_model(openvino.Model([y], [x]), "CPU",
                                  {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"})
    request = compiled.create_infer_request()
    request.set_input_tensor(openvino.Tensor(random.uniform(-1, 1, (job["n"], job["in"])).astype(np.float32)))
    return functools.partial(timed, request.infer)


serve(f"openvino {openvino.__version__}", prepare)
