#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include "parameter.hpp"

namespace graft::detail {

/// Copies `count` floating elements from one dtype to another, at any alignment.
inline void convert(Dtype from, const std::byte* source, Dtype to, std::byte* target, Index count) {
  if (from == to) {
    if (count) std::memcpy(target, source, std::size_t(count) * size_of(to));
    return;
  }
  const auto write = [&]<class S>(S) {
    for (Index i = 0; i < count; ++i) {
      S value;
      if constexpr (sizeof(S) >= 4) value = element_as<S>(from, source, std::size_t(i));
      else value = S(element_as<float>(from, source, std::size_t(i)));
      std::memcpy(target + std::size_t(i) * sizeof(S), &value, sizeof(S));
    }
  };
  switch (to) {
    case Dtype::f64: return write(double{});
    case Dtype::f16: return write(f16{});
    case Dtype::bf16: return write(bf16{});
    default: return write(float{});
  }
}

/// Gives a parameter the values of a tensor of the same shape. With `may_borrow` it keeps the tensor's own bytes
/// where they have an owner, the right dtype and a usable address; else it copies into memory of its own.
inline void assign(ParameterData& parameter, const TensorView& tensor, bool may_borrow) {
  const bool is_aligned = reinterpret_cast<std::uintptr_t>(tensor.data) % size_of(parameter.dtype()) == 0;
  if (may_borrow && tensor.owner && tensor.dtype == parameter.dtype() && is_aligned) {
    parameter.borrow(const_cast<std::byte*>(tensor.data), std::const_pointer_cast<void>(tensor.owner));
    return;
  }
  if (parameter.is_meta() || parameter.is_borrowed() || !parameter.data()) parameter.allocate();
  parameter.touch();
  convert(tensor.dtype, tensor.data, parameter.dtype(), parameter.data(), parameter.shape().size());
}

}  // namespace graft::detail
