#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "../core/error.hpp"
#include "../tensor/init.hpp"
#include "../tensor/matrix.hpp"
#include "config_types.hpp"

namespace graft {

/// A matrix as a product of two thin ones: b (out, r) times a (r, in).
template <class S = double>
struct LowRank {
  Matrix<S> b, a;

  [[nodiscard]] Index rank() const { return a.rows(); }
};

/// How many singular values are kept: a number of them, or the least number that holds a share of the energy,
/// which is the sum of their squares (a number from 0 to 1 with a decimal point).
struct RankOrShare {
  template <class N>
    requires std::is_arithmetic_v<N>
  RankOrShare(N value)
      : rank(std::is_integral_v<N> ? Index(value) : 0), share(std::is_integral_v<N> ? 0 : double(value)) {}

  Index rank;  ///< 0: by share
  double share;
};

namespace detail {

/// The principal directions (k, in) of rows (n, in) about their mean, each with the sign that makes its
/// largest entry positive; their singular values, and the share of the variance that each explains.
struct Principal {
  Matrix<double> directions;
  std::vector<double> singular_values, shares;
};

/// The functions that take the compiler long, apart from the programs that do without.
struct Factorisers {
  /// The best approximation of m (out, in): b = U·S, the rows of a orthonormal. Ranks that m does not have
  /// are zeros.
  LowRank<double> (*truncate)(const Matrix<double>& m, const RankOrShare& r);
  /// The same of a product, which is not formed.
  LowRank<double> (*truncate_product)(const LowRank<double>& product, const RankOrShare& r);
  /// What a scheme that starts from the base makes of a weight (out, in).
  LowRank<double> (*start)(const InitLoraWeights&, const Matrix<double>& weight, Index r, double scaling,
                           const Seed&);
  /// The scheme "orthogonal", which needs no weight.
  LowRank<double> (*orthogonal)(Index out, Index in, Index r, std::uint64_t seed, const std::string& path);
  Principal (*principal)(const Matrix<double>& rows, Index k);
};
/// Null until graft/factorise.hpp is part of the program.
inline constinit const Factorisers* factorisers = nullptr;

/// @throws ConfigError where graft/factorise.hpp is not part of the program.
[[nodiscard]] inline const Factorisers& need_factorisers(std::string_view what) {
  if (!factorisers)
    fail<ConfigError>(
        std::string(what) + " needs matrices to be factorised",
        "SVD and QR come with graft/factorise.hpp, apart: they take the compiler longer than all the rest",
        "include graft/factorise.hpp in one file of the program");
  return *factorisers;
}

}  // namespace detail
}  // namespace graft
