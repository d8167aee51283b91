#include <graft/adapters/looked_up.hpp>

#include <doctest/doctest.h>

#include <vector>

TEST_CASE("the padding's vector gets nothing, and with scale_grad_by_freq others share") {
  const std::vector<int> numbers{4, 2, 4, 1, 4, 2};
  const graft::Ids ids{std::span<const int>(numbers)};
  graft::LayerFacts facts{.in = 5};
  const auto factors = [&] {
    const graft::detail::LookUps looked_up(ids, facts, nullptr);
    std::vector<double> all;
    for (graft::Index i = 0; i < ids.size(); ++i) all.push_back(looked_up.factor(i));
    return all;
  };
  CHECK(factors() == std::vector<double>{1, 1, 1, 1, 1, 1});
  facts.padding_idx = 2;
  CHECK(factors() == std::vector<double>{1, 0, 1, 1, 1, 0});
  facts.scale_grad_by_freq = true;
  CHECK(factors() == std::vector<double>{1.0 / 3, 0, 1.0 / 3, 1, 1.0 / 3, 0});
}
