#include <graft/training/schedule.hpp>

#include <doctest/doctest.h>

#include <array>

namespace {
using Twelve = std::array<double, 12>;
template <class Factor>
void check(const Twelve& expected, const Factor& factor) {
  for (long step = 0; step < 12; ++step) {
    CAPTURE(step);
    CHECK(std::abs(factor(step) - expected[std::size_t(step)]) < 1e-15);
  }
}
}  // namespace

// What transformers' get_…_schedule_with_warmup answered at a learning rate of 1.
TEST_CASE("factors are those of transformers' schedules") {
  using namespace graft;
  check({0.0, 0.3333333333333333, 0.6666666666666666, 1, 1, 1, 1, 1, 1, 1, 1, 1}, [](long step) { return constant_with_warmup(step, 3); });
  check({0.0, 0.3333333333333333, 0.6666666666666666, 1.0, 0.8571428571428571, 0.7142857142857143, 0.5714285714285714,
         0.42857142857142855, 0.2857142857142857, 0.14285714285714285, 0.0, 0.0},
        [](long step) { return linear_with_warmup(step, 3, 10); });
  check({0.0, 0.3333333333333333, 0.6666666666666666, 1.0, 0.9504844339512095, 0.8117449009293668, 0.6112604669781572,
         0.38873953302184283, 0.18825509907063326, 0.04951556604879048, 0.0, 0.04951556604879043},
        [](long step) { return cosine_with_warmup(step, 3, 10); });
  check({0.0, 0.3333333333333333, 0.6666666666666666, 1.0, 0.6112604669781572, 0.04951556604879048, 0.18825509907063315,
         0.8117449009293667, 0.9504844339512096, 0.38873953302184294, 0.0, 0.3887395330218426},
        [](long step) { return cosine_with_warmup(step, 3, 10, 1.5); });
  check({1.0, 0.8, 0.6, 0.4, 0.2, 0, 0, 0, 0, 0, 0, 0}, [](long step) { return linear_with_warmup(step, 0, 5); });
  check({1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0}, [](long step) { return cosine_with_warmup(step, 0, 0); });
}
