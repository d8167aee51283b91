#include <doctest/doctest.h>

#include <cmath>
#include <graft/graft.hpp>
#include <limits>

#define GRAFT_CBLAS_HEADER "support/fake_cblas.hpp"
#include <graft/blas.hpp>

#include "support/ramp.hpp"
#include "support/results.hpp"
#include "support/trained.hpp"

using graft::Adaptable;
using graft::Batch;
using graft::BlasProduct;
using graft::Index;
using graft::KernelProduct;
using graft::Linear;
using graft::Matrix;
using results::same_bits;
using results::same_values;
using support::close;
using support::ramp;

namespace {

// F.linear(ramp(3, 5, salt=1), ramp(7, 5, salt=2), ramp(7, salt=3)): exact in float
const std::vector<double> with_bias{-1.703125, -2.796875, -1.015625, -2.109375, -0.328125, 0.015625,  -1.078125,
                                    -1.53125,  -2.90625,  -1.046875, -2.0625,   -0.203125, -0.140625, -1.15625,
                                    -0.640625, -2.65625,  -1.078125, -2.375,    -0.796875, -1.375,    -2.671875};

template <class T, class Product = BlasProduct>
Linear<T, graft::dense, Product> layer() {
  Linear<T, graft::dense, Product> made(5, 7);
  support::fill_ramp(made.weight, 2);
  support::fill_ramp(made.bias, 3);
  return made;
}

template <class T, class Product>
struct Net {
  Adaptable<Linear<T, graft::dense, Product>> q{13, 17}, v{17, 7, false};
  Net() { graft::initialise(*this, 5); }
  auto operator()(const auto& x) const { return v(q(x)); }
  GRAFT_MODULE(q, v)
};

template <class M>
void inject_all(M& model) {
  trained::inject(graft::LoraConfig{.r = 3, .lora_alpha = 7, .target_modules = {"q", "v"}}, model, "lora", 1);
  trained::inject(graft::Ia3Config{.target_modules = {"q", "v"}, .feedforward_modules = {"v"}}, model, "ia3", 4);
}
template <class M, class T>
Matrix<T> mixed(const M& model, const Matrix<T>& x) {
  Batch batch;
  batch.add(1, graft::select(model, {{"lora"}})).add(3, graft::base_only()).add(2, graft::select(model, {{"ia3", 2}, {"lora"}})).add(1);
  return Matrix<T>(model(batch.input(x)).value());
}

}  // namespace

TEST_CASE_TEMPLATE("a linear layer over a BLAS is torch's, written where nothing was", T, float, double) {
  const auto linear = layer<T>();
  const Matrix<T> x = ramp<T>(3, 5, 1);
  CHECK(close(linear(x), with_bias, 0));
  for (Index i = 0; i < 3; ++i)
    CHECK(close(linear(Matrix<T>(x.row(i))), {with_bias.begin() + 7 * i, with_bias.begin() + 7 * (i + 1)}, 0));
  Matrix<T> wide = Matrix<T>::Constant(5, 9, 100), to = Matrix<T>::Constant(3, 11, std::numeric_limits<T>::quiet_NaN());
  wide.block(1, 2, 3, 5) = x;
  CHECK(close(linear(wide.block(1, 2, 3, 5)), with_bias, 0));
  const auto op = linear.op();
  const std::array<graft::In<T>, 1> views{graft::in<T>(wide.data() + 11, 3, 5, 9)};
  op.template forward<T>(graft::BatchView{}, graft::out<T>(to.data() + 2, 3, 7, 11), std::span<const graft::In<T>>(views));
  CHECK(close(Matrix<T>(to.middleCols(2, 7)), with_bias, 0));
  CHECK((std::isnan(to(0, 1)) && std::isnan(to(2, 9))));
  CHECK(linear(Matrix<T>(0, 5)).rows() == 0);
}

TEST_CASE_TEMPLATE("adapters stand over a BLAS, in mixed batches too", T, float, double) {
  Net<T, BlasProduct> model;
  Net<T, KernelProduct> own;
  const Matrix<T> x = ramp<T>(7, 13, 1), base = model(x);
  inject_all(model);
  inject_all(own);
  graft::set_adapter(model, {"lora"});
  graft::set_adapter(own, {"lora"});
  CHECK(!same_values(model(x), base));
  CHECK(same_values(model(x), own(x)));
  const Matrix<T> y = mixed(model, x);
  CHECK(same_values(y, mixed(own, x)));
  CHECK(same_bits(Matrix<T>(y.middleRows(1, 3)), Matrix<T>(base.middleRows(1, 3))));
  const auto off = graft::disable_adapter(model);
  CHECK(same_bits(Matrix<T>(model(x)), base));
}

TEST_CASE("sizes beyond an int are refused") {
  const float number = 0;
  float result = 0;
  const Index large = Index(std::numeric_limits<int>::max()) + 1;
  CHECK_THROWS_AS(BlasProduct()(graft::in(&number, 2, 1, large), graft::in(&number, 1, 1), graft::out(&result, 2, 1)), graft::ShapeError);
}

TEST_CASE("the BLAS was called as it wants to be") {
  const int s = fake_cblas::sgemm_calls, d = fake_cblas::dgemm_calls, sv = fake_cblas::sgemv_calls, dv = fake_cblas::dgemv_calls;
  (void)layer<float>()(ramp(3, 5, 1));
  (void)layer<double>()(ramp<double>(2, 5, 1));
  (void)layer<double>()(ramp<double>(2, 5, 1));
  (void)layer<float>()(ramp(1, 5, 1));
  (void)layer<double>()(ramp<double>(1, 5, 1));
  CHECK(fake_cblas::sgemm_calls == s + 1);
  CHECK(fake_cblas::dgemm_calls == d + 2);
  CHECK(fake_cblas::sgemv_calls == sv + 1);
  CHECK(fake_cblas::dgemv_calls == dv + 1);
  CHECK(fake_cblas::bad_arguments == 0);
}
