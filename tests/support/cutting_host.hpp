#pragma once

#include <graft/tensor/parallel_for.hpp>

namespace support {

/// A host's executor that asks for pieces, runs them from the last to the first, and counts.
struct CuttingHost {
  explicit CuttingHost(graft::Index threads) : wanted(threads) {}
  [[nodiscard]] graft::Index threads() const { return wanted; }
  void operator()(graft::Index count, const graft::LoopBody& body) {
    ++calls;
    pieces += count;
    for (graft::Index i = count; i-- > 0;) body(i);
  }
  graft::Index wanted;
  int calls = 0;
  graft::Index pieces = 0;
};

}  // namespace support
