#pragma once

#ifndef _OPENMP
#error "graft/openmp.hpp: compile with -fopenmp"
#endif

#include <omp.h>

#include <algorithm>

#include "tensor/parallel_for.hpp"

namespace graft {

/// OpenMP's threads for `Batch::set_parallel_for`:
///
///     graft::OpenMp threads;              // or threads(4)
///     batch.set_parallel_for(threads);
///
/// Inside of a parallel region loops are run as OpenMP nests them: by default by the caller alone.
class OpenMp {
 public:
  /// 0: as many as OpenMP would take.
  explicit OpenMp(Index threads = 0) : threads_(threads > 0 ? threads : std::max<Index>(1, Index(omp_get_max_threads()))) {}
  [[nodiscard]] Index threads() const { return threads_; }
  void operator()(Index count, const LoopBody& body) const {
#pragma omp parallel for schedule(static, 1) num_threads(int(std::min(threads_, count)))
    for (Index i = 0; i < count; ++i) body(i);
  }

 private:
  Index threads_;
};

}  // namespace graft
