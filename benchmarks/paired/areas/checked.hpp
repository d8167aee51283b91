#pragma once

#include <cmath>
#include <limits>
#include <string>

#include "layers.hpp"

namespace paired {

/// What ours leaves in y, for others to be held against: the time of a wrong result says nothing.
template <class T>
class Expected {
 public:
  template <class F>
  Expected(Problem<T>& problem, F run_ours) : problem_(problem) {
    run_ours();
    values_ = problem.result();
  }

  /// The contender, unless it computes something else.
  [[nodiscard]] Contender checked(Contender contender) const {
    if (!contender.seconds) return contender;
    problem_.result().setConstant(std::numeric_limits<T>::quiet_NaN());
    contender.seconds(1);
    const double distance = double((problem_.result() - values_).cwiseAbs().maxCoeff());
    // sums of up to 4096 products, each in another order
    const double tolerance = (sizeof(T) == 8 ? 1e-11 : 1e-3) * (1 + double(values_.cwiseAbs().maxCoeff()));
    if (distance <= tolerance && problem_.result().allFinite()) return contender;
    std::string reason = "WRONG RESULT, off by ";
    return {{}, reason += std::to_string(distance)};
  }

 private:
  Problem<T>& problem_;
  graft::Matrix<T> values_;
};

}  // namespace paired
