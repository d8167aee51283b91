#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <type_traits>

#include "half.hpp"

namespace graft {

/// The element types that a state dict can hold.
enum class Dtype { f64, f32, f16, bf16, i64, i32, i16, i8, u8, boolean };

/// Where a parameter's memory is: nowhere yet (meta), or in main memory.
enum class Device { meta, cpu };

namespace detail {
struct DtypeFacts {
  Dtype dtype;
  std::string_view tag;    // in safetensors
  std::string_view torch;  // of the tensor class that torch prints
  std::size_t size;        // bytes
};
inline constexpr std::array<DtypeFacts, 10> dtype_facts{{{Dtype::f64, "F64", "Double", 8},
                                                         {Dtype::f32, "F32", "Float", 4},
                                                         {Dtype::f16, "F16", "Half", 2},
                                                         {Dtype::bf16, "BF16", "BFloat16", 2},
                                                         {Dtype::i64, "I64", "Long", 8},
                                                         {Dtype::i32, "I32", "Int", 4},
                                                         {Dtype::i16, "I16", "Short", 2},
                                                         {Dtype::i8, "I8", "Char", 1},
                                                         {Dtype::u8, "U8", "Byte", 1},
                                                         {Dtype::boolean, "BOOL", "Bool", 1}}};
}  // namespace detail

/// Bytes of one element.
[[nodiscard]] constexpr std::size_t size_of(Dtype dtype) { return detail::dtype_facts[std::size_t(dtype)].size; }
/// The tag that safetensors writes: "F32", "BF16", …
[[nodiscard]] constexpr std::string_view tag_of(Dtype dtype) { return detail::dtype_facts[std::size_t(dtype)].tag; }
/// The word that torch prints before "Tensor": "Float", "BFloat16", …
[[nodiscard]] constexpr std::string_view torch_name_of(Dtype dtype) {
  return detail::dtype_facts[std::size_t(dtype)].torch;
}
/// The dtype of a safetensors tag, or nothing when graft has no such type.
[[nodiscard]] constexpr std::optional<Dtype> dtype_of_tag(std::string_view tag) {
  for (const auto& facts : detail::dtype_facts)
    if (facts.tag == tag) return facts.dtype;
  return std::nullopt;
}
/// Floating point of any width: what a parameter can be loaded from.
[[nodiscard]] constexpr bool is_floating(Dtype dtype) { return dtype <= Dtype::bf16; }

/// The dtype of a C++ scalar.
template <class T>
inline constexpr Dtype dtype_of = [] {
  if constexpr (std::is_same_v<T, double>) return Dtype::f64;
  else if constexpr (std::is_same_v<T, float>) return Dtype::f32;
  else if constexpr (std::is_same_v<T, f16>) return Dtype::f16;
  else if constexpr (std::is_same_v<T, bf16>) return Dtype::bf16;
  else if constexpr (std::is_same_v<T, std::int64_t>) return Dtype::i64;
  else if constexpr (std::is_same_v<T, std::int32_t>) return Dtype::i32;
  else if constexpr (std::is_same_v<T, std::int16_t>) return Dtype::i16;
  else if constexpr (std::is_same_v<T, std::int8_t>) return Dtype::i8;
  else if constexpr (std::is_same_v<T, std::uint8_t>) return Dtype::u8;
  else if constexpr (std::is_same_v<T, bool>) return Dtype::boolean;
  else static_assert(sizeof(T) == 0, "graft: no Dtype for this scalar");
}();

/// The scalar that activations have when a weight has W: double for double, float for all else.
template <class W>
using compute_scalar = std::conditional_t<std::is_same_v<W, double>, double, float>;

/// Element `i` of an array of floating `dtype`, as T.
template <class T>
[[nodiscard]] inline T element_as(Dtype dtype, const std::byte* data, std::size_t i) {
  const auto read = [&]<class S>(S) {  // files may lie at any address
    S value;
    __builtin_memcpy(&value, data + i * sizeof(S), sizeof(S));
    return value;
  };
  switch (dtype) {
    case Dtype::f64: return T(read(double{}));
    case Dtype::f16: return T(float(read(f16{})));
    case Dtype::bf16: return T(float(read(bf16{})));
    default: return T(read(float{}));
  }
}

}  // namespace graft
