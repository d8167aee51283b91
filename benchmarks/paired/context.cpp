#include "context.hpp"

#include <cstdlib>
#include <dlfcn.h>

#ifndef GRAFT_SOURCE_DIR
#define GRAFT_SOURCE_DIR "."
#endif

namespace paired {
namespace {

const char* const shared_objects[] = {"eigen", "eigen_plain", "openblas", "blis", "onednn", "graft_plain", "graft_native"};
const char* const workers[] = {"torch", "onnxruntime", "openvino", "ggml"};

}  // namespace

const Context::Loaded& Context::load(const std::string& name) {
  const auto known = loaded_.find(name);
  if (known != loaded_.end()) return known->second;
  Loaded& loaded = loaded_[name];
  const std::filesystem::path path = options.peers / ("libpeer_" + name + ".so");
  if (!std::filesystem::exists(path)) {
    loaded.reason = "not installed when this was built";
    return loaded;
  }
  void* object = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
  const auto entry = object ? reinterpret_cast<const PeerApi* (*)()>(dlsym(object, "paired_peer")) : nullptr;
  if (entry) loaded.api = entry();
  else loaded.reason = dlerror();
  return loaded;
}

Contender Context::peer(const std::string& name, const PeerJob& job) {
  const Loaded& loaded = load(name);
  if (!loaded.api) return {{}, loaded.reason};
  void* const task = loaded.api->prepare(&job);
  if (!task) return {{}, "it does not do that"};
  const std::shared_ptr<void> held(task, loaded.api->release);
  return {here([run = loaded.api->run, held] { run(held.get()); }), {}};
}

const Context::Started& Context::start(const std::string& name) {
  const auto known = started_.find(name);
  if (known != started_.end()) return known->second;
  Started& started = started_[name];
  const std::string python = name == "torch" ? options.torch_python : options.extras_python;
  if (python.empty()) {
    started.reason = "not installed";
    return started;
  }
  try {
    started.worker = std::make_shared<Worker>(
        std::vector<std::string>{python, std::string(GRAFT_SOURCE_DIR) + "/benchmarks/paired/workers/with_" + name + ".py",
                                 std::to_string(options.threads)});
  } catch (const std::exception& error) {
    started.reason = error.what();
  }
  return started;
}

Contender Context::worker(const std::string& name, const nlohmann::json& job) {
  const Started& started = start(name);
  if (!started.worker) return {{}, started.reason};
  try {
    const auto held = std::make_shared<WorkerJob>(started.worker, job);
    return {[held](long calls) { return held->seconds(calls); }, {}};
  } catch (const std::exception& error) {
    return {{}, error.what()};
  }
}

nlohmann::json Context::peer_facts() {
  nlohmann::json facts;
  for (const char* name : shared_objects) {
    const Loaded& loaded = load(name);
    facts[name] = loaded.api ? std::string(loaded.api->name) + ": " + loaded.api->version() : "missing: " + loaded.reason;
  }
  for (const char* name : workers) {
    const Started& started = start(name);
    facts[name] = started.worker ? started.worker->version() : "missing: " + started.reason;
  }
  return facts;
}

}  // namespace paired
