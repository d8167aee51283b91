#pragma once

#include <cstddef>
#include <memory>

#include "../tensor/parameter.hpp"
#include "kept.hpp"

namespace graft::detail {

/// The elements of a parameter in another order, packed at the first forward after it was written. Copies start empty.
class PackedCopy {
 public:
  /// The bytes that pack(to) writes, as many as the parameter has; null where somebody has a view of it, through which it
  /// may be written unannounced. Any number of threads may ask at once, as long as none writes the parameter.
  template <class Pack>
  [[nodiscard]] const std::byte* get(const ParameterData& parameter, const Pack& pack) const {
    if (parameter.is_viewed()) return nullptr;
    const std::uint64_t stamp = parameter.version() + 1;
    return kept_.at(stamp, [&](Memory& memory) {
      if (memory.size != parameter.bytes()) memory = {zeroed(parameter.bytes()), parameter.bytes()};
      pack(memory.bytes.get());
    }).bytes.get();
  }

 private:
  struct Memory {
    std::shared_ptr<std::byte> bytes{};
    std::size_t size = 0;
  };
  Kept<Memory> kept_;
};

}  // namespace graft::detail
