"""ggml, llama.cpp's tensor library, out of llama.cpp's Python package: a graph as llama.cpp builds it for a layer."""
import ctypes
import functools
import importlib.metadata
import importlib.util
import pathlib

from serve import Refused, fail, serve, threads, timed

import numpy as np

TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 8, "bf16": 30}


def folders():
    for package in ("llama_cpp", "llama_cpp_py_sync"):
        spec = importlib.util.find_spec(package)
        for place in spec.submodule_search_locations if spec else ():
            for inside in (pathlib.Path(place), pathlib.Path(place) / "lib"):
                if any(inside.glob("libggml-base*")):
                    yield package, inside


def load():
    reason = "no Python package with ggml"
    for package, folder in folders():
        try:
            return package, *(ctypes.CDLL(str(sorted(folder.glob(f"lib{name}.*"))[0]), mode=ctypes.RTLD_GLOBAL)
                              for name in ("ggml-base", "ggml-cpu"))
        except OSError as error:  # built for a later system, for one
            reason = f"{package}: {str(error).split(' (required')[0].split(': ', 1)[-1]}"
    fail(reason)


package, base, cpu = load()


class InitParameters(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_size_t), ("buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool)]


def function(of, name, result, *arguments):
    f = getattr(of, name)
    f.restype, f.argtypes = result, arguments
    return f


pointer, size, integer = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
init = function(base, "ggml_init", pointer, InitParameters)
free = function(base, "ggml_free", None, pointer)
new_2d = function(base, "ggml_new_tensor_2d", pointer, pointer, integer, ctypes.c_int64, ctypes.c_int64)
data_of = function(base, "ggml_get_data", pointer, pointer)
mul_mat = function(base, "ggml_mul_mat", pointer, pointer, pointer, pointer)
scale = function(base, "ggml_scale", pointer, pointer, pointer, ctypes.c_float)
add = function(base, "ggml_add", pointer, pointer, pointer, pointer)
new_graph = function(base, "ggml_new_graph", pointer, pointer)
expand = function(base, "ggml_build_forward_expand", None, pointer, pointer)
quantize = function(base, "ggml_quantize_chunk", size, integer, pointer, pointer, ctypes.c_int64, ctypes.c_int64,
                    ctypes.c_int64, pointer)
row_bytes = function(base, "ggml_row_size", size, integer, ctypes.c_int64)
new_backend = function(cpu, "ggml_backend_cpu_init", pointer)
set_threads = function(cpu, "ggml_backend_cpu_set_n_threads", None, pointer, integer)
compute = function(base, "ggml_backend_graph_compute", integer, pointer, pointer)
has_avx512 = function(cpu, "ggml_cpu_has_avx512", integer)

backend = new_backend()
set_threads(backend, threads)
random = np.random.default_rng(0)


class Graph:
    def __init__(self, job):
        n, n_in, n_out, r = job["n"], job["in"], job["out"], job.get("r", 0)
        kind = TYPES[job.get("type", "f32")]
        low_rank_kind = TYPES["f16" if job.get("type", "f32") != "f32" else "f32"]
        needed = row_bytes(kind, n_in) * n_out + 4 * (n * (n_in + 3 * n_out + 2 * r) + r * (n_in + n_out))
        self.context = init(InitParameters(needed + (16 << 20), None, False))
        self.kept = []
        x = self.tensor(TYPES["f32"], n_in, n)
        y = mul_mat(self.context, self.tensor(kind, n_in, n_out), x)
        if job["operation"] == "lora":
            u = mul_mat(self.context, self.tensor(low_rank_kind, n_in, r), x)
            update = mul_mat(self.context, self.tensor(low_rank_kind, r, n_out), u)
            y = add(self.context, y, scale(self.context, update, 2.0))
        elif job["operation"] != "product":
            raise Refused("it does not do that")
        self.graph = new_graph(self.context)
        expand(self.graph, y)

    def tensor(self, kind, columns, rows):
        tensor = new_2d(self.context, kind, columns, rows)
        values = random.uniform(-0.05, 0.05, (rows, columns)).astype(np.float32)
        if kind == TYPES["f32"]:
            ctypes.memmove(data_of(tensor), values.ctypes.data, values.nbytes)
        else:
            quantize(kind, values.ctypes.data, data_of(tensor), 0, rows, columns, None)
        return tensor

    def __del__(self):
        free(self.context)

    def run(self):
        if compute(backend, self.graph) != 0:
            raise RuntimeError("the graph failed")


def prepare(job):
    if job.get("double"):
        raise Refused("it computes in f32")
    return functools.partial(timed, Graph(job).run)


try:
    version = importlib.metadata.version({"llama_cpp": "llama-cpp-python"}.get(package, package))
except importlib.metadata.PackageNotFoundError:
    version = "of unknown version"
serve(f"ggml of {package} {version}, {'AVX-512' if has_avx512() else 'without AVX-512'}", prepare)
