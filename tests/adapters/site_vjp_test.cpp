#include <graft/adapters/site_vjp.hpp>

#include "support/laws.hpp"

using graft::Index;
using graft::Matrix;

TEST_CASE("skeleton") {
  using L = graft::Linear<double>;
  struct N {};
  awkward::Net<awkward::LinearCase<double>> net;
  trained::inject(graft::LoraConfig{.r = 3, .lora_alpha = 7, .target_modules = {"site"}}, net, "a");
  const graft::SiteVjp<L, graft::Lora, graft::AdaLora, graft::Ia3> site(net.site.base_layer(),
                                                                        graft::SiteAccess<std::remove_cvref_t<decltype(net.site)>>::table(std::as_const(net.site)));
  const Matrix<double> x = awkward::rows<double>(5, 13), dy = awkward::rows<double>(5, 7, 3);
  const graft::detail::OneSequence one(5);
  CHECK(site.trainable(one.view()));
  const auto run = [&](const Matrix<double>& in) {
    Matrix<double> y(5, 7);
    site.forward(one.view(), {.rows = graft::in<double>(in)}, graft::out(y), {});
    return y;
  };
  CHECK(results::same_bits(run(x), net(x)));
  graft::Gradients gradients;
  Matrix<double> dx = Matrix<double>::Zero(5, 13), g = dy;
  site.backward(one.view(), {.rows = graft::in<double>(x)}, graft::in<double>(run(x)), graft::out(g), graft::out(dx), gradients, {});
  const auto loss = [&](const Matrix<double>& in) { return run(in).cwiseProduct(dy).sum(); };
  for (Index i = 0; i < x.size(); ++i) {
    Matrix<double> more = x, less = x;
    more.data()[i] += 1e-3;
    less.data()[i] -= 1e-3;
    CHECK(dx.data()[i] == doctest::Approx((loss(more) - loss(less)) / 2e-3));
  }
  for (const char* name : {"lora_A", "lora_B"}) {
    auto p = net.site.parameter("a", name).view<double>();
    const auto& d = gradients.of<double>(net.site.parameter("a", name));
    REQUIRE(d.norm() > 0.1);
    for (Index i = 0; i < p.size(); ++i) {
      const double was = p.data()[i];
      p.data()[i] = was + 1e-3;
      const double more = loss(x);
      p.data()[i] = was - 1e-3;
      const double less = loss(x);
      p.data()[i] = was;
      CHECK(d.data()[i] == doctest::Approx((more - less) / 2e-3));
    }
  }
}
