#include <doctest/doctest.h>

#include <array>
#include <cstring>
#include <graft/tensor/convert.hpp>
#include <vector>

using graft::bf16;
using graft::Dtype;
using graft::f16;
using graft::ParameterData;
using graft::TensorView;

namespace {
template <class T>
std::vector<std::byte> bytes_of(const std::vector<double>& values) {
  std::vector<std::byte> bytes(values.size() * sizeof(T));
  for (std::size_t i = 0; i < values.size(); ++i) {
    T value;
    if constexpr (sizeof(T) >= 4) value = T(values[i]);
    else value = T(float(values[i]));
    std::memcpy(bytes.data() + i * sizeof(T), &value, sizeof(T));
  }
  return bytes;
}
/// Converts to `to` and answers the elements as double.
std::vector<double> converted(Dtype from, const std::vector<std::byte>& source, Dtype to, std::size_t count) {
  std::vector<std::byte> target(count * graft::size_of(to));
  graft::detail::convert(from, source.data(), to, target.data(), graft::Index(count));
  std::vector<double> values;
  for (std::size_t i = 0; i < count; ++i) values.push_back(graft::element_as<double>(to, target.data(), i));
  return values;
}
}  // namespace

TEST_CASE("every floating dtype converts to every other") {
  const std::vector<double> values{0, 1, -2.5, 0.125, 1024};  // exact in all four
  const std::array<std::pair<Dtype, std::vector<std::byte>>, 4> sources{{{Dtype::f64, bytes_of<double>(values)},
                                                                         {Dtype::f32, bytes_of<float>(values)},
                                                                         {Dtype::f16, bytes_of<f16>(values)},
                                                                         {Dtype::bf16, bytes_of<bf16>(values)}}};
  for (const auto& [from, bytes] : sources)
    for (const auto& [to, unused] : sources) CHECK(converted(from, bytes, to, values.size()) == values);
}

TEST_CASE("a double goes to f32 and back without a detour, narrow ones round") {
  CHECK(converted(Dtype::f64, bytes_of<double>({0.1}), Dtype::f64, 1)[0] == 0.1);
  CHECK(converted(Dtype::f64, bytes_of<double>({0.1}), Dtype::f32, 1)[0] == double(0.1f));
  CHECK(converted(Dtype::f32, bytes_of<float>({0.1}), Dtype::bf16, 1)[0] == 0.10009765625);   // torch.tensor(.1).bfloat16()
  CHECK(converted(Dtype::f32, bytes_of<float>({0.1}), Dtype::f16, 1)[0] == 0.0999755859375);  // torch.tensor(.1).half()
}

TEST_CASE("assign copies into a parameter of another dtype, from any address") {
  std::vector<std::byte> bytes(9);
  const auto source = bytes_of<float>({1.5, -3});
  std::memcpy(bytes.data() + 1, source.data(), source.size());
  ParameterData parameter(Dtype::f64, {2});
  graft::detail::assign(parameter, {Dtype::f32, {2}, bytes.data() + 1, nullptr}, true);
  CHECK(reinterpret_cast<const double*>(parameter.data())[1] == -3);
  CHECK_FALSE(parameter.is_borrowed());
}

TEST_CASE("assign borrows only what has an owner, the right dtype and a usable address") {
  const auto block = std::make_shared<std::array<float, 4>>(std::array<float, 4>{1, 2, 3, 4});
  const auto* data = reinterpret_cast<const std::byte*>(block->data());
  const auto assigned = [](Dtype dtype, const TensorView& view, bool may_borrow) {
    ParameterData parameter(dtype, {2});
    graft::detail::assign(parameter, view, may_borrow);
    return parameter;
  };
  const ParameterData borrowed = assigned(Dtype::f32, {Dtype::f32, {2}, data, block}, true);
  CHECK(borrowed.data() == data);
  CHECK(borrowed.is_borrowed());
  CHECK(assigned(Dtype::f32, {Dtype::f32, {2}, data, block}, false).data() != data);
  CHECK(assigned(Dtype::f32, {Dtype::f32, {2}, data, nullptr}, true).data() != data);
  CHECK(assigned(Dtype::f64, {Dtype::f32, {2}, data, block}, true).data() != data);
  const ParameterData unaligned = assigned(Dtype::f32, {Dtype::f32, {2}, data + 1, block}, true);
  CHECK(unaligned.data() != data + 1);
}

TEST_CASE("assign never writes into borrowed memory") {
  std::vector<float> memory{1, 2};
  ParameterData parameter(Dtype::f32, {2});
  parameter.borrow(reinterpret_cast<std::byte*>(memory.data()), nullptr);
  const auto source = bytes_of<float>({8, 9});
  graft::detail::assign(parameter, {Dtype::f32, {2}, source.data(), nullptr}, false);
  CHECK(memory == std::vector<float>{1, 2});
  CHECK(reinterpret_cast<const float*>(parameter.data())[1] == 9);
}
