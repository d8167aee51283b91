// What may flow through a model: every kind of activation and of token ids, and what comes out.
#include <graft/graft.hpp>

#include <array>
#include <cstdint>
#include <iostream>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

struct Model {
  graft::Adaptable<graft::Embedding<>> embed{16, 4};
  graft::Adaptable<graft::Linear<>> linear{4, 2};
  auto operator()(const auto& ids) const { return linear(embed(ids)); }
  GRAFT_MODULE(embed, linear)
};

using Tensor3 = Eigen::Tensor<float, 3, Eigen::RowMajor>;
using ColMajor = Eigen::MatrixXf;

template <class Y>
const char* kind_of(const Y&) {
  if constexpr (std::is_same_v<Y, graft::Matrix<>>) return "Matrix";
  else if constexpr (std::is_same_v<Y, graft::Rows<>>) return "Rows";
  else return "Tensor";
}
template <class Y>
graft::Shape shape_of(const Y& y) {
  if constexpr (graft::TensorLike<Y> && !graft::MatrixLike<Y>) return graft::tensor_traits<Y>::shape(y);
  else return {y.rows(), y.cols()};
}
template <class Y>
const float* data_of(const Y& y) {
  if constexpr (graft::RowsLike<Y>) return y.value().data();
  else return y.data();
}

int main() {
  Model model;
  graft::initialise(model, 1);
  const graft::LoraConfig config{.r = 2, .target_modules = {"embed", "linear"}, .init_lora_weights = false};
  graft::inject_adapter_in_model(config, model);

  const auto show = [](const char* what, const auto& y, const graft::Matrix<>& expected) {
    const bool same = graft::in(data_of(y), expected.rows(), expected.cols()).isApprox(expected, 1e-5f);
    const std::string shape = graft::to_string(shape_of(y));
    std::cout << what << " -> " << kind_of(y) << ' ' << shape << (same ? "" : " WRONG") << '\n';
  };

  // activations of a linear site: six rows of four features, always the same numbers
  const graft::Matrix<> x = graft::Matrix<>::NullaryExpr(6, 4, [](auto i, auto j) { return float(i - j * j); });
  const graft::Matrix<> y = model.linear(x);
  std::vector<float> memory(x.data(), x.data() + x.size());
  graft::Matrix<> wide = graft::Matrix<>::Zero(8, 6);
  wide.block(1, 1, 6, 4) = x;
  Tensor3 tensor(2, 3, 4);
  std::copy(memory.begin(), memory.end(), tensor.data());

  show("graft::Matrix", model.linear(x), y);
  show("Eigen::Map", model.linear(Eigen::Map<const graft::Matrix<>>(memory.data(), 6, 4)), y);
  show("Eigen::Ref", model.linear(Eigen::Ref<const graft::Matrix<>>(x)), y);
  show("Eigen::Block", model.linear(wide.block(1, 1, 6, 4)), y);
  show("one row", model.linear(x.row(2)), y.row(2));
  show("column-major, copied", model.linear(ColMajor(x)), y);
  show("its transpose, a column a sample", model.linear(ColMajor(x.transpose()).transpose()), y);
  show("an expression, evaluated", model.linear(2 * x - x), y);
  show("Eigen::Tensor", model.linear(tensor), y);
  show("Eigen::TensorMap", model.linear(Eigen::TensorMap<const Tensor3>(memory.data(), 1, 6, 4)), y);

  graft::Batch batch;
  batch.add(4).add(2, graft::base_only());
  graft::Matrix<> mixed = y;
  mixed.bottomRows(2) = model.linear->operator()(x.bottomRows(2));
  show("graft::Rows", model.linear(batch.input(x)), mixed);
  show("a matrix and its batch", model.linear(x, batch), mixed);
  show("a tensor and its batch", model.linear(tensor, batch), mixed);

  // token ids
  const std::vector<int> ids{3, 1, 4, 1, 5, 9};
  const std::vector<std::int64_t> long_ids(ids.begin(), ids.end());
  const graft::Matrix<> states = model(ids);
  Eigen::Tensor<int, 2, Eigen::RowMajor> id_tensor(2, 3);
  std::copy(ids.begin(), ids.end(), id_tensor.data());
  show("std::vector<int>", model(ids), states);
  show("std::span<const std::int32_t>", model(std::span<const std::int32_t>(ids)), states);
  show("std::span<const std::int64_t>", model(std::span<const std::int64_t>(long_ids)), states);
  show("std::array<int, 6>", model(std::array<int, 6>{3, 1, 4, 1, 5, 9}), states);
  show("Eigen::MatrixXi, row after row", model(Eigen::MatrixXi{{3, 1, 4}, {1, 5, 9}}), states);
  show("an integer Eigen::Tensor", model(id_tensor), states);
  batch.clear();
  batch.add(6);
  show("graft::Tokens", model(batch.input(ids)), states);
}
