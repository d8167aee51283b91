"""ONNX Runtime: the product, and LoRA beside it, as one graph. The weight is a constant, so it may pack it."""
import functools

from serve import Refused, serve, threads, timed

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

random = np.random.default_rng(0)


def constant(name, *shape, dtype=np.float32):
    return numpy_helper.from_array(random.uniform(-0.05, 0.05, shape).astype(dtype), name)


def graph(job):
    dtype = np.float64 if job.get("double") else np.float32
    kind = TensorProto.DOUBLE if job.get("double") else TensorProto.FLOAT
    n, n_in, n_out = job["n"], job["in"], job["out"]
    constants = [constant("w", n_in, n_out, dtype=dtype)]
    if job["operation"] == "product":
        nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    elif job["operation"] == "lora":
        constants += [constant("a", n_in, job["r"]), constant("b", job["r"], n_out)]
        nodes = [helper.make_node("MatMul", ["x", "w"], ["base"]), helper.make_node("MatMul", ["x", "a"], ["u"]),
                 helper.make_node("MatMul", ["u", "b"], ["update"]), helper.make_node("Add", ["base", "update"], ["y"])]
    else:
        raise Refused("it does not do that")
    model = helper.make_model(
        helper.make_graph(nodes, "linear", [helper.make_tensor_value_info("x", kind, [n, n_in])],
                          [helper.make_tensor_value_info("y", kind, [n, n_out])], constants),
        opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    return model.SerializeToString(), random.uniform(-1, 1, (n, n_in)).astype(dtype)


def prepare(job):
    model, x = graph(job)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    binding.bind_cpu_input("x", x)
    binding.bind_output("y")
    return functools.partial(timed, lambda: session.run_with_iobinding(binding))


serve(f"onnxruntime {onnxruntime.__version__}", prepare)
