// oneDNN's sgemm: the weight as it lies, as ours. (Its inner_product reorders the weight beforehand, for a second copy.)
#include <oneapi/dnnl/dnnl.h>
#include <string>

#include "../peer.hpp"

namespace {

const char* version() {
  static const std::string text = [] {
    const dnnl_version_t* v = dnnl_version();
    return std::to_string(v->major) + "." + std::to_string(v->minor) + "." + std::to_string(v->patch);
  }();
  return text.c_str();
}

void* prepare(const PeerJob* job) {
  return job->operation == peer_product && !job->is_double ? new PeerJob(*job) : nullptr;
}

void run(void* task) {
  const PeerJob& job = *static_cast<const PeerJob*>(task);
  dnnl_sgemm('N', 'T', job.n, job.out, job.in, 1, static_cast<const float*>(job.x), job.in,
             static_cast<const float*>(job.w), job.in, 0, static_cast<float*>(job.y), job.out);
}

void release(void* task) { delete static_cast<PeerJob*>(task); }

const PeerApi api{PEER_NAME, version, prepare, run, release};

}  // namespace

const PeerApi* paired_peer() { return &api; }
