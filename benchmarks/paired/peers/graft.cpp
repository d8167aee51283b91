// graft's own base product. Compiled with plain -O2 and for the processor at hand: the two should be as fast.
#include <graft/graft.hpp>

#include "../peer.hpp"

namespace {

struct Task {
  explicit Task(const PeerJob& asked) : job(asked), site(job.in, job.out, false) {
    site->weight.bind(static_cast<const float*>(job.w));
    batch.add(job.n);
  }
  PeerJob job;
  graft::Adaptable<graft::Linear<float, graft::mapped>> site;
  graft::Batch batch;
};

const char* version() { return GRAFT_VERSION; }

void* prepare(const PeerJob* job) {
  return job->operation == peer_product && !job->is_double ? new Task(*job) : nullptr;
}

void run(void* task) {
  Task& t = *static_cast<Task*>(task);
  t.site(Eigen::Map<const graft::Matrix<>>(static_cast<const float*>(t.job.x), t.job.n, t.job.in), t.batch,
         Eigen::Map<graft::Matrix<>>(static_cast<float*>(t.job.y), t.job.n, t.job.out));
}

void release(void* task) { delete static_cast<Task*>(task); }

const PeerApi api{PEER_NAME, version, prepare, run, release};

}  // namespace

const PeerApi* paired_peer() { return &api; }
