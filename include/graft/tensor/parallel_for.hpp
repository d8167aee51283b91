#pragma once

#include <concepts>
#include <type_traits>

#include "shape.hpp"

namespace graft {

/// What a parallel loop does: body(i) is piece i. It refers to its maker's memory and lives as long as the loop.
class LoopBody {
 public:
  template <class F>
  explicit LoopBody(const F& pieces)
      : pieces_(&pieces), call_([](const void* from, Index i) { (*static_cast<const F*>(from))(i); }) {}
  void operator()(Index i) const { call_(pieces_, i); }

 private:
  const void* pieces_;
  void (*call_)(const void*, Index);
};

/// How loops of a forward run: on the caller's thread, or as the host says. It refers to the host's callable, pool or
/// scheduler, which must outlive every forward that uses it.
///
/// run(count, body) calls body(i) once for every i in [0, count), on any threads and in any order, and returns when all
/// calls have. A body never throws, and no result has other bits for the way in which it is run.
class ParallelFor {
 public:
  /// The caller's thread alone.
  ParallelFor() = default;
  /// `threads`: into how many pieces work is cut at most.
  template <std::invocable<Index, const LoopBody&> Run>
    requires(!std::same_as<std::remove_const_t<Run>, ParallelFor>)
  ParallelFor(Run& run, Index threads)
      : run_(&run), threads_(threads), call_([](const void* to, Index count, const LoopBody& body) {
          (*static_cast<Run*>(const_cast<void*>(to)))(count, body);
        }) {}
  /// What knows its number of threads itself, as `graft::ThreadPool` does.
  template <std::invocable<Index, const LoopBody&> Run>
    requires(!std::same_as<std::remove_const_t<Run>, ParallelFor>) && requires(Run& run) { Index(run.threads()); }
  ParallelFor(Run& run) : ParallelFor(run, Index(run.threads())) {}

  [[nodiscard]] Index threads() const { return run_ ? threads_ : 1; }

  /// Calls pieces(i) for every i in [0, count).
  template <class F>
  void operator()(Index count, const F& pieces) const {
    if (run_ && count > 1) return call_(run_, count, LoopBody(pieces));
    for (Index i = 0; i < count; ++i) pieces(i);
  }

 private:
  const void* run_ = nullptr;
  Index threads_ = 1;
  void (*call_)(const void*, Index, const LoopBody&) = nullptr;
};

}  // namespace graft
