#include <graft/adapters/combination.hpp>

#include <doctest/doctest.h>

#include <limits>

using namespace graft;
using Type = CombinationType;

namespace {
Matrix<double> row(std::initializer_list<double> values) {
  Matrix<double> m(1, Index(values.size()));
  std::copy(values.begin(), values.end(), m.data());
  return m;
}
Matrix<double> combined(Type type, std::vector<Matrix<double>> tensors, std::vector<double> weights,
                        CombineOptions options = {}) {
  std::vector<std::string> names;
  for (std::size_t i = 0; i < tensors.size(); ++i) names.push_back("site." + std::to_string(i));
  return detail::combine_tensors(type, std::move(tensors), weights, options, names);
}
}  // namespace

TEST_CASE("linear: the weighted sum") {
  CHECK(combined(Type::linear, {row({1, -2, 3}), row({4, 0, -1})}, {2, -0.5}) == row({0, -4, 6.5}));
}

TEST_CASE("magnitude pruning keeps int(density · size) largest values, of equal ones the first") {
  const auto pruned = [](double density) {
    return combined(Type::magnitude_prune, {row({1, -4, 2, -2, 3})}, {1}, {.density = density});
  };
  CHECK(pruned(0.5) == row({0, -4, 0, 0, 3}));
  CHECK(pruned(0.6) == row({0, -4, 2, 0, 3}));
  CHECK(pruned(0) == row({0, 0, 0, 0, 0}));
  CHECK(pruned(1) == row({1, -4, 2, -2, 3}));
  CHECK(pruned(7) == row({1, -4, 2, -2, 3}));
}

TEST_CASE("ties: signs by the unweighted sum or by their number, the mean of those that agree") {
  const std::vector<Matrix<double>> tensors{row({5, 1, 0, -1}), row({-1, 1, 0, 1}), row({-1, -4, 0, 0})};
  const std::vector<double> weights{1, 10, 100};
  //  sums 3, -2, 0, 0: plus, minus, plus, plus
  CHECK(combined(Type::ties, tensors, weights, {.density = 1}) == row({5, -400, 0, 10}));
  //  signs -1, 1, 0, 0: minus, plus, plus, plus
  CHECK(combined(Type::ties, tensors, weights, {.density = 1, .majority_sign = MajoritySign::frequency}) ==
        row({(-10 - 100) / 2.0, (1 + 10) / 2.0, 0, 10}));
}

TEST_CASE("dare keeps each entry with the density's probability, and divides by it") {
  const Index size = 40'000;
  const Matrix<double> ones = Matrix<double>::Ones(1, size);
  const Matrix<double> dropped = combined(Type::dare_linear, {ones}, {2}, {.density = 0.3, .seed = 4});
  for (Index i = 0; i < 100; ++i) CHECK((dropped(0, i) == 0 || dropped(0, i) == doctest::Approx(2 / 0.3)));
  const double kept = double((dropped.array() != 0).count()) / double(size);
  CHECK(std::abs(kept - 0.3) < 5 * std::sqrt(0.3 * 0.7 / double(size)));  // five standard deviations
  CHECK(combined(Type::dare_linear, {ones}, {2}, {.density = 0.3, .seed = 4}) == dropped);
  CHECK(combined(Type::dare_linear, {ones}, {2}, {.density = 0.3, .seed = 5}) != dropped);
  // every tensor drops entries of its own
  const Matrix<double> both = combined(Type::dare_linear, {ones, ones}, {1, 1}, {.density = 0.3, .seed = 4});
  CHECK((both.array() == both(0, 0)).count() < size);
  CHECK(combined(Type::dare_ties, {ones}, {2}, {.density = 0.3, .seed = 4}) == dropped);
}

TEST_CASE("a density must go with the type") {
  CHECK_NOTHROW(detail::check_density(Type::cat, {}));
  CHECK_NOTHROW(detail::check_density(Type::svd, {}));
  CHECK_NOTHROW(detail::check_density(Type::ties, {.density = 0}));
  for (const Type type :
       {Type::ties, Type::ties_svd, Type::dare_linear, Type::dare_ties_svd, Type::magnitude_prune})
    CHECK_THROWS_AS(detail::check_density(type, {}), ConfigError);
  CHECK_THROWS_AS(detail::check_density(Type::ties, {.density = -0.1}), ConfigError);
  CHECK_THROWS_AS(detail::check_density(Type::ties, {.density = std::numeric_limits<double>::quiet_NaN()}),
                  ConfigError);
  CHECK_THROWS_AS(detail::check_density(Type::dare_ties, {.density = 0}), ConfigError);
}
