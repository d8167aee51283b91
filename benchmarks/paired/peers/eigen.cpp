// Eigen as its users write it. Compiled once for the processor at hand and once with plain -O2.
#include <Eigen/Core>
#include <memory>
#include <vector>

#include "../peer.hpp"

namespace {

template <class T>
using RowMajor = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

struct Task {
  virtual ~Task() = default;
  virtual void run() = 0;
};

template <class T>
struct EigenTask final : Task {
  using In = Eigen::Map<const RowMajor<T>>;
  using Out = Eigen::Map<RowMajor<T>>;

  explicit EigenTask(const PeerJob& asked) : job(asked), u(job.n, job.r) {
    if (job.operation == peer_merge_formed || job.operation == peer_norm_formed) formed.resize(job.out, job.in);
  }

  void run() override {
    const T scale = T(job.scale);
    switch (job.operation) {
      case peer_product: return product();
      case peer_lora_products:
        product();
        u.noalias() = x() * a().transpose();
        u *= scale;
        y().noalias() += u * b().transpose();
        return;
      case peer_lora_expression: y() = x() * w().transpose() + scale * (x() * a().transpose()) * b().transpose(); return;
      case peer_mixed_loop: return mixed();
      case peer_merge:
        w().noalias() += (scale * b()) * a();
        job.scale = -job.scale;
        return;
      case peer_merge_formed:
        formed.noalias() = b() * a();
        formed *= scale;
        w() += formed;
        job.scale = -job.scale;
        return;
      case peer_norm_formed:
        formed.noalias() = b() * a();
        formed = w() + scale * formed;
        Eigen::Map<Eigen::Matrix<T, Eigen::Dynamic, 1>>(static_cast<T*>(job.y), job.out) = formed.rowwise().norm();
        return;
    }
  }

 private:
  // A run-time matrix of one row is a matrix-vector product only when it says so.
  void product() {
    if (job.n > 1) {
      y().noalias() = x() * w().transpose();
      return;
    }
    using Vector = Eigen::Matrix<T, Eigen::Dynamic, 1>;
    Eigen::Map<Vector>(static_cast<T*>(job.y), job.out).noalias() =
        w() * Eigen::Map<const Vector>(static_cast<const T*>(job.x), job.in);
  }

  // What PEFT does with `adapter_names`: index_select, two products, index_add.
  void mixed() {
    for (long k = 0; k < job.adapters; ++k) {
      std::vector<long> rows;
      for (long i = 0; i < job.n; ++i)
        if (job.adapter_of_row[i] == k) rows.push_back(i);
      if (rows.empty()) continue;
      const RowMajor<T> gathered = x()(rows, Eigen::all);
      const RowMajor<T> down = gathered * In(static_cast<const T*>(job.adapter_a[k]), job.r, job.in).transpose();
      const RowMajor<T> up = (down * In(static_cast<const T*>(job.adapter_b[k]), job.out, job.r).transpose()) * T(job.scale);
      for (std::size_t i = 0; i < rows.size(); ++i) y().row(rows[i]) += up.row(Eigen::Index(i));
    }
  }

  In x() const { return {static_cast<const T*>(job.x), job.n, job.in}; }
  Out w() const { return {static_cast<T*>(job.w), job.out, job.in}; }
  In a() const { return {static_cast<const T*>(job.a), job.r, job.in}; }
  In b() const { return {static_cast<const T*>(job.b), job.out, job.r}; }
  Out y() const { return {static_cast<T*>(job.y), job.n, job.out}; }

  PeerJob job;
  RowMajor<T> u, formed;
};

const char* version() {
  static const std::string text = std::to_string(EIGEN_WORLD_VERSION) + "." + std::to_string(EIGEN_MAJOR_VERSION) + "." +
                                  std::to_string(EIGEN_MINOR_VERSION) + ", " + Eigen::SimdInstructionSetsInUse();
  return text.c_str();
}

void* prepare(const PeerJob* job) {
  Eigen::setNbThreads(1);
  if (job->is_double) return static_cast<Task*>(new EigenTask<double>(*job));
  return static_cast<Task*>(new EigenTask<float>(*job));
}
void run(void* task) { static_cast<Task*>(task)->run(); }
void release(void* task) { delete static_cast<Task*>(task); }

const PeerApi api{PEER_NAME, version, prepare, run, release};

}  // namespace

const PeerApi* paired_peer() { return &api; }
