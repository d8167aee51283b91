#include <doctest/doctest.h>

#include <graft/modules/activations.hpp>
#include <graft/modules/visit.hpp>

#include "support/ramp.hpp"

using graft::Matrix;

namespace {
const Matrix<> x = support::ramp(3, 7, 1);

struct Head {
  graft::GELU act{graft::Gelu::tanh};
  graft::Dropout dropout{0.1};
  auto operator()(const auto& input) const { return dropout(act(input)); }
  GRAFT_MODULE(act, dropout)
};
}  // namespace

TEST_CASE("each module is its free function") {
  CHECK(graft::ReLU{}(x) == graft::relu(x));
  CHECK(graft::SiLU{}(x) == graft::silu(x));
  CHECK(graft::GELU{}(x) == graft::gelu(x));
  CHECK(graft::GELU{graft::Gelu::tanh}(x) == graft::gelu(x, graft::Gelu::tanh));
  CHECK(graft::GELU{graft::Gelu::tanh}(x) != graft::gelu(x));
  CHECK(graft::Tanh{}(x) == graft::tanh(x));
  CHECK(graft::Sigmoid{}(x) == graft::sigmoid(x));
}

TEST_CASE("Identity and Dropout give back what came in, with memory of its own") {
  CHECK(graft::Identity{}(x) == x);
  CHECK(graft::Dropout(0.9)(x) == x);
  static_assert(std::is_same_v<decltype(graft::Identity{}(x * 2)), Matrix<float>>);
  const Matrix<> doubled = graft::Identity{}(x * 2);
  CHECK(doubled == x * 2);
  graft::Batch batch;
  batch.add(3);
  CHECK(graft::Dropout{}(batch.input(x)).value() == x);
  Eigen::Tensor<float, 3, Eigen::RowMajor> tensor(1, 2, 3);
  CHECK(graft::Identity{}(tensor).dimension(2) == 3);
}

TEST_CASE("a dropout's probability is from 0 to 1") {
  CHECK_NOTHROW(graft::Dropout(0));
  CHECK_NOTHROW(graft::Dropout(1));
  CHECK_THROWS_WITH_AS(graft::Dropout(1.5), doctest::Contains("p = 1.5"), graft::ConfigError);
  CHECK_THROWS_AS(graft::Dropout(-0.1), graft::ConfigError);
}

TEST_CASE("they are modules with a place in the tree") {
  Head head;
  std::vector<std::string> seen;
  graft::visit(head, [&](std::string_view path, auto&) { seen.emplace_back(path); });
  CHECK(seen == std::vector<std::string>{"", "act", "dropout"});
  CHECK(head(x) == graft::gelu(x, graft::Gelu::tanh));
  CHECK(head.act.extra_repr() == "approximate='tanh'");
  CHECK(head.dropout.extra_repr() == "p=0.1, inplace=False");
}
