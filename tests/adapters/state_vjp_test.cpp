#include <graft/adapters/state_vjp.hpp>

#include "support/results.hpp"
#include "support/site_gradients.hpp"

using graft::Index;
using graft::Matrix;

namespace {

/// A user's method: y += w · b. It may know its gradient.
template <bool knows>
struct Shift {
  using Config = graft::LoraConfig;
  static constexpr graft::PeftType type = graft::PeftType::lora;
  template <class T>
  class State;
  static constexpr bool supports(graft::LayerKind kind) { return kind == graft::LayerKind::linear; }
};
template <bool knows>
template <class T>
class Shift<knows>::State : public graft::AdapterState<T> {
 public:
  State(const graft::LoraConfig& config, const graft::LayerFacts& facts, const graft::AdapterPlan&)
      : b_(graft::dtype_of<T>, graft::Shape{facts.out}) {
    b_.set_requires_grad(!config.inference_mode);
  }
  graft::PeftType type() const override { return graft::PeftType::lora; }
  std::unique_ptr<graft::AnyAdapterState> clone() const override { return std::make_unique<State>(*this); }
  std::vector<graft::AdapterParameter> parameters() override { return {{"lora_A", ".weight", &b_}}; }
  void initialise(std::uint64_t, std::string_view) override { graft::fill_constant(b_, 3); }
  bool is_meta() const override { return false; }
  void update(const graft::SiteInput<T>&, graft::Out<T> y, double weight, const graft::BaseWeight<T>&, graft::Workspace*) const override {
    for (Index i = 0; i < y.rows(); ++i)
      for (Index c = 0; c < y.cols(); ++c) y(i, c) += T(weight) * reinterpret_cast<const T*>(b_.data())[c];
  }
  void update_vjp(const graft::UpdateGradient<T>& to) const
    requires knows
  {
    CHECK(to.y.data());  // it did not say that it needs none
    if (T* const d_b = graft::detail::gradient_of<T>(b_, to.gradients)) graft::detail::add_channel_sums<T>(graft::in<T>(to.g), to.g.cols(), to.weight, d_b);
  }

 private:
  graft::ParameterData b_;
};

template <bool knows>
struct Net {
  graft::Adapted<graft::Linear<double>, graft::Lora, Shift<knows>> p{3, 2};
  GRAFT_MODULE(p)
};
template <bool knows>
auto vjp_of(const Net<knows>& net, const graft::Batch& batch) {
  const graft::SiteTable* table = graft::SiteAccess<std::remove_cvref_t<decltype(net.p)>>::table(net.p);
  return graft::SiteVjp<graft::Linear<double>, graft::Lora, Shift<knows>>(net.p.base_layer(), table, batch.view());
}

}  // namespace

TEST_CASE("a user's adapter that knows its gradient trains; of two methods of one type the last is meant") {
  Net<true> net;
  graft::initialise(net, 1);
  (void)graft::inject_adapter_in_model(graft::LoraConfig{.target_modules = {"p"}}, net, "a");
  const Matrix<double> x = awkward::rows<double>(4, 3), dy = awkward::rows<double>(4, 2, 3);
  graft::Batch batch;
  batch.add(4, graft::select(net, {{"a", 0.5}}));
  Matrix<double> y(4, 2), g = dy, dx = Matrix<double>::Zero(4, 3);
  graft::Gradients gradients;
  const auto vjp = vjp_of(net, batch);
  CHECK(vjp.trainable());
  REQUIRE(vjp.kept_results() == 1);
  Matrix<double> kept(4, 2);
  vjp.forward({.rows = graft::in<double>(x)}, graft::out(y), kept.data());
  CHECK(results::same_values(y, Matrix<double>(net.p.base_layer()(x).array() + 1.5)));
  vjp.backward({.rows = graft::in<double>(x)}, kept.data(), graft::out(g), graft::out(dx), gradients);
  CHECK(results::same_values(gradients.of<double>(net.p.parameter("a", "lora_A")), Matrix<double>(0.5 * dy.colwise().sum())));
  CHECK(results::same_values(dx, Matrix<double>(dy * net.p->weight.view())));
}
TEST_CASE("a user's adapter that does not know its gradient is an error that says what to add, where it takes part") {
  Net<false> net;
  graft::initialise(net, 1);
  (void)graft::inject_adapter_in_model(graft::LoraConfig{.target_modules = {"p"}}, net, "mine");
  const Matrix<double> x = awkward::rows<double>(4, 3);
  Matrix<double> y = Matrix<double>::Constant(4, 2, 9);
  graft::Batch batch, base;
  batch.add(4, graft::select(net, {{"mine"}}));
  base.add(4, graft::base_only());
  try {
    vjp_of(net, batch).forward({.rows = graft::in<double>(x)}, graft::out(y), nullptr);
    FAIL("recorded");
  } catch (const graft::TrainingError& error) {
    const std::string text = error.what();
    CHECK(text.find("'mine' at 'p'") != std::string::npos);
    CHECK(text.find("update_vjp(const graft::UpdateGradient<T>&)") != std::string::npos);
  }
  CHECK(y == Matrix<double>::Constant(4, 2, 9));
  vjp_of(net, base).forward({.rows = graft::in<double>(x)}, graft::out(y), nullptr);
  CHECK(results::same_values(y, net.p.base_layer()(x)));
}
