#include <graft/adapters/site_vjp.hpp>

#include <graft/factorise.hpp>
#include <graft/io/narrow_kernels.hpp>

#include <utility>
#include <vector>

#include "support/allocation_counter.hpp"
#include "support/laws.hpp"
#include "support/site_gradients.hpp"

using graft::Index;
using graft::Matrix;
using site_gradients::Probe;
using site_gradients::without_biases;

namespace {

using LinearCase = awkward::LinearCase<double>;
using Selections = std::vector<graft::NamedWeight>;

/// Adapters of every kind at one site, none of them active.
template <class Case>
Probe<Case> with_all_methods(double dropout) {
  Probe<Case> probe;
  const auto add = [&](auto config, const std::string& name, double seed) {
    if constexpr (requires { config.lora_dropout; }) config.lora_dropout = dropout;
    trained::inject(without_biases(config), probe.net, name, seed, false);
  };
  add(laws::LoraMethod<Case>::config(), "lora", 1);
  add(laws::DoraMethod<Case>::config(), "dora", 2);
  add(laws::Ia3Method<Case>::config(), "after", 3);
  add(laws::Ia3FeedforwardMethod<Case>::config(), "before", 4);
  add(graft::LoraConfig{.target_modules = {"other"}, .modules_to_save = {"site"}}, "copy", 5);
  trained::inject(graft::LoraConfig{.r = 2, .bias = graft::Bias::lora_only, .target_modules = {"site"}}, probe.net, "bias", 6, false);
  graft::set_requires_grad(probe.net, {"lora", "dora", "after", "before", "copy", "bias"}, true);
  return probe;
}
const std::vector<std::string> all_names{"lora", "dora", "after", "before", "copy", "bias"};
const std::vector<std::pair<Index, Selections>> mixed{
    {2, {{"lora"}, {"after"}}}, {1, {}}, {1, {{"before", 2}, {"dora", 0.5}}}, {2, {{"copy"}, {"lora"}}}, {1, {{"bias"}}}, {1, {{"lora"}, {"after"}}},
    {2, {}}, {1, {{"dora"}, {"lora", -1}, {"before"}}}};
constexpr Index mixed_rows = 11;

template <class Case>
graft::AdapterSelection selection(const Probe<Case>& probe, const Selections& wanted) {
  return wanted.empty() ? graft::base_only() : graft::select(probe.net, wanted);
}
template <class Case>
Probe<Case> with_mixed_batch(double dropout = 0) {
  Probe<Case> probe = with_all_methods<Case>(dropout);
  probe.x = site_gradients::input_of<typename Case::Scalar>(Case::input(mixed_rows));
  probe.rows.clear();
  for (const auto& [count, wanted] : mixed) probe.rows.push_back({count, selection(probe, wanted)});
  return probe;
}

/// The gradients of a batch are the sums of those of its sequences, one by one.
template <class Case>
void is_the_sum(double dropout) {
  using T = typename Case::Scalar;
  Probe<Case> probe = with_mixed_batch<Case>(dropout);
  probe.dropout = {true, 4, 7};
  probe.backward();
  const Matrix<T> dx = probe.dx;
  REQUIRE(dx.norm() > 1);
  std::vector<Matrix<T>> sums, wholes;
  const auto gradients = [&] {
    std::vector<Matrix<T>> all;
    for (const std::string& name : all_names)
      for (const auto& values : probe.parameters(name)) {
        all.push_back(Matrix<T>::Zero(1, values.size));
        if (values.gradient) all.back() = Eigen::Map<const Matrix<T>>(values.gradient, 1, values.size);
      }
    return all;
  };
  wholes = gradients();
  for (const Matrix<T>& whole : wholes) sums.push_back(Matrix<T>::Zero(1, whole.cols()));
  const auto all_rows = probe.rows;
  for (std::size_t i = 0; i < all_rows.size(); ++i) {
    // the others stay in the batch, at their places, and nothing comes from their results
    Matrix<T> dy = probe.dy;
    Index begin = 0;
    for (std::size_t k = 0; k < i; ++k) begin += all_rows[k].first;
    Matrix<T> alone = Matrix<T>::Zero(dy.rows(), dy.cols());
    alone.middleRows(begin, all_rows[i].first) = dy.middleRows(begin, all_rows[i].first);
    probe.dy = alone;
    probe.backward();
    probe.dy = dy;
    CHECK(results::same_values(Matrix<T>(probe.dx.middleRows(begin, all_rows[i].first)), Matrix<T>(dx.middleRows(begin, all_rows[i].first))));
    const std::vector<Matrix<T>> here = gradients();
    for (std::size_t p = 0; p < here.size(); ++p) sums[p] += here[p];
    if (dropout > 0) continue;  // what is dropped depends on a row's place
    const auto x = probe.x;
    probe.rows = {all_rows[i]};
    probe.x = x.part(begin, all_rows[i].first);
    probe.dy = dy.middleRows(begin, all_rows[i].first);
    probe.backward();
    CHECK(results::same_values(probe.dx, Matrix<T>(dx.middleRows(begin, all_rows[i].first))));
    probe.rows = all_rows;
    probe.x = x;
    probe.dy = dy;
  }
  for (std::size_t p = 0; p < sums.size(); ++p) {
    REQUIRE(wholes[p].norm() > 0.1);
    CHECK(results::same_values(sums[p], wholes[p]));
  }
}

}  // namespace

TEST_CASE("without dropout a recorded forward has the bits of inference, in mixed batches too") {
  const auto check = []<class Case>(Case, const auto& input) {
    Probe<Case> probe = with_mixed_batch<Case>();
    const auto y = probe.forward();
    CHECK(results::same_bits(y, typename std::remove_cvref_t<decltype(y)>(probe.net.inner.site(probe.batch.input(input)).value())));
    probe.dropout = {true, 1, 2};  // of adapters that have no dropout
    CHECK(results::same_bits(probe.forward(), y));
  };
  check(awkward::LinearCase<float>{}, awkward::LinearCase<float>::input(mixed_rows));
  check(awkward::Conv1dCase<float>{}, awkward::Conv1dCase<float>::input(mixed_rows));
}
TEST_CASE("the gradients of a mixed batch are the sums of those of its sequences") {
  is_the_sum<LinearCase>(0);
  is_the_sum<awkward::Conv2dCase<float>>(0);
}

TEST_CASE("frozen adapters pass a gradient on and get none") {
  Probe<LinearCase> probe = with_mixed_batch<LinearCase>();
  probe.compose();
  CHECK(probe.vjp().trainable());
  probe.backward();
  REQUIRE(probe.gradients.size() > 10);
  const Matrix<double> dx = probe.dx;
  graft::set_requires_grad(probe.net, all_names, false);
  CHECK_FALSE(probe.vjp().trainable());
  probe.backward();
  CHECK(probe.gradients.empty());
  CHECK(results::same_values(probe.dx, dx));
  graft::set_requires_grad(probe.net, "lora", true);
  graft::Batch base;
  base.add(2, graft::base_only());
  const auto trainable = [&](const graft::Batch& batch) {
    return decltype(probe.vjp())(probe.net.inner.site.base_layer(), probe.table(), batch.view()).trainable();
  };
  CHECK(probe.vjp().trainable());
  CHECK_FALSE(trainable(base));
  probe.net.inner.site->weight.set_requires_grad(true);
  CHECK(trainable(base));
}
TEST_CASE("gradients do not depend on whether somebody wants that by the input") {
  Probe<LinearCase> probe = with_mixed_batch<LinearCase>();
  std::vector<Matrix<double>> found[2];
  for (const bool wants_dx : {true, false}) {
    probe.backward(wants_dx);
    for (const std::string& name : all_names)
      for (const auto& values : probe.parameters(name)) {
        REQUIRE(values.gradient);
        found[wants_dx].push_back(Eigen::Map<const Matrix<double>>(values.gradient, 1, values.size));
      }
    CHECK((probe.dx.norm() > 1) == wants_dx);
  }
  CHECK(found[0] == found[1]);
}
TEST_CASE("in float the gradients are those of double") {
  Probe<awkward::LinearCase<float>> narrow = with_mixed_batch<awkward::LinearCase<float>>();
  Probe<LinearCase> wide = with_mixed_batch<LinearCase>();
  narrow.backward();
  wide.backward();
  for (const std::string& name : all_names) {
    const auto a = narrow.parameters(name);
    const auto b = wide.parameters(name);
    REQUIRE(a.size() == b.size());
    for (std::size_t i = 0; i < a.size(); ++i)
      CHECK(results::same_values(Matrix<float>(Eigen::Map<const Matrix<float>>(a[i].gradient, 1, a[i].size)),
                                 Matrix<float>(Eigen::Map<const Matrix<double>>(b[i].gradient, 1, b[i].size).cast<float>())));
  }
}
TEST_CASE("a warm pass allocates nothing, forward or backward") {
  Probe<awkward::LinearCase<float>> probe = with_mixed_batch<awkward::LinearCase<float>>();
  probe.compose();
  Matrix<float> y(mixed_rows, 7), dy = awkward::rows<float>(mixed_rows, 7), dx = Matrix<float>::Zero(mixed_rows, 13);
  std::vector<float> kept(std::size_t(probe.vjp().kept_results() * y.size()));
  REQUIRE_FALSE(kept.empty());
  const auto pass = [&] {
    probe.gradients.clear();
    const auto vjp = probe.vjp();
    (void)vjp.trainable();
    vjp.forward(probe.x.view(), graft::out(y), kept.data());
    vjp.backward(probe.x.view(), kept.data(), graft::out(dy), graft::out(dx), probe.gradients);
  };
  pass();
  CHECK(support::allocations_of(pass) == 0);
  CHECK(probe.batch.workspace().in_use() == 0);
}

namespace {
/// A layer that counts its products.
struct Counted {
  awkward::PlainLinear<double> inner{13, 7};
  mutable int products = 0;
  auto operator()(const Matrix<double>& x) const {
    ++products;
    return inner(x);
  }
};
struct CountedCase {
  using Scalar = double;
  using Layer = Counted;
  static Layer make() {
    Layer layer;
    layer.inner = awkward::PlainLinearCase<double>::make();
    return layer;
  }
  static auto input(Index n) { return awkward::rows<double>(n, 13); }
};
}  // namespace
template <>
struct graft::layer_traits<Counted> {
  using Plain = graft::layer_traits<awkward::PlainLinear<double>>;
  using scalar = double;
  static constexpr LayerKind kind = LayerKind::linear;
  static Index in_features(const Counted& layer) { return Plain::in_features(layer.inner); }
  static Index out_features(const Counted& layer) { return Plain::out_features(layer.inner); }
  static auto& weight(auto& layer) { return layer.inner.kernel; }
  static auto* bias(auto& layer) { return &layer.inner.offsets; }
};

TEST_CASE("a backward pass forms no product of the base: what it reads of that was kept") {
  for (const double dropout : {0.0, 0.25}) {
    Probe<CountedCase> probe;
    graft::LoraConfig dora{.r = 3, .lora_alpha = 7, .lora_dropout = dropout, .target_modules = {"site"}, .use_dora = true};
    trained::inject(dora, probe.net, "dora", 1, false);
    trained::inject(graft::Ia3Config{.target_modules = {"site"}}, probe.net, "after", 2, false);
    graft::set_requires_grad(probe.net, {"dora", "after"}, true);
    probe.dropout = {true, 4, 7};
    probe.rows = {{1, graft::base_only()}, {2, graft::select(probe.net, {{"dora"}})}, {2, graft::select(probe.net, {{"dora"}, {"after"}})}};
    probe.compose();
    CHECK(probe.vjp().kept_results() == 2);
    (void)probe.forward();
    int& products = probe.net.inner.site->products;
    const int of_forward = std::exchange(products, 0);
    CHECK(of_forward > 0);
    probe.backward();  // forward too
    CHECK(products == of_forward);
    CHECK(probe.gradients.size() == 4);
    graft::set_requires_grad(probe.net, {"dora", "after"}, false);
    CHECK(probe.vjp().kept_results() == 0);
  }
}

namespace {
template <class Case>
void dropped_has_gradients(auto config, bool is_dora = false) {
  Probe<Case> probe;
  config.lora_dropout = 0.4;
  trained::inject(config, probe.net, "a");
  trained::inject(laws::Ia3Method<Case>::config(), probe.net, "after", 9, false);
  probe.rows = {{2, graft::select(probe.net, {{"a"}, {"after"}})}, {1, graft::base_only()}, {2, graft::select(probe.net, {{"a"}})}};
  const auto dry = probe.forward();
  probe.dropout = {true, 11, 3};
  const auto y = probe.forward();
  REQUIRE_FALSE(results::same_values(y, dry));
  CHECK(results::same_values(Matrix<double>(y.row(2)), Matrix<double>(dry.row(2))));
  CHECK(results::same_bits(y, probe.forward()));
  probe.dropout.step = 4;
  CHECK_FALSE(results::same_values(probe.forward(), y));
  graft::set_requires_grad(probe.net, {"a", "after"}, true);
  if (is_dora) site_gradients::hold_norms(probe, "a");
  probe.check_all({"a", "after"});
}
}  // namespace

TEST_CASE("with dropout the gradients are those of the forward with the same elements dropped") {
  dropped_has_gradients<LinearCase>(laws::LoraMethod<LinearCase>::config());
  dropped_has_gradients<LinearCase>(laws::AdaLoraMethod<LinearCase>::config());
  dropped_has_gradients<LinearCase>(laws::DoraMethod<LinearCase>::config(), true);
  dropped_has_gradients<awkward::TransposedCase<double>>(graft::LoraConfig{.r = 2, .target_modules = {"site"}, .use_dora = true}, true);
  using Conv = awkward::Conv2dCase<double>;
  dropped_has_gradients<Conv>(laws::LoraMethod<Conv>::config());
  dropped_has_gradients<Conv>(laws::DoraMethod<Conv>::config(), true);
  for (const bool use_dora : {false, true})
    dropped_has_gradients<LinearCase>(
        graft::LoraConfig{.r = 3, .target_modules = {"site"}, .use_dora = use_dora, .init_lora_weights = "olora"}, use_dora);
}
TEST_CASE("with dropout a mixed batch is the sum of its sequences") {
  is_the_sum<LinearCase>(0.3);
}
TEST_CASE("with dropout DoRA computes its base part over what is left, and initial factors stay whole") {
  for (const bool use_dora : {false, true}) {
    Probe<LinearCase> probe;
    trained::inject(graft::LoraConfig{.r = 3, .lora_alpha = 7, .lora_dropout = 0.3, .target_modules = {"site"}, .use_dora = use_dora,
                                      .init_lora_weights = "olora"},
                    probe.net, "a");
    probe.dropout = {true, 5, 6};
    const Matrix<double> x = probe.x.rows;
    Matrix<double> left(5, 13);
    graft::detail::DropoutMask(probe.dropout, "inner.site", "a", 0.3).apply<double>(graft::in<double>(x), 0, graft::out(left));
    REQUIRE((left.array() == 0).count() > 5);
    const Matrix<double> a = probe.net.inner.site.parameter("a", "lora_A").view<double>(), b = probe.net.inner.site.parameter("a", "lora_B").view<double>();
    const graft::InitialFactors& start = *probe.table()->find("a")->state()->initial_factors();
    const auto matrix = [](const graft::ParameterData& data) {
      return Matrix<double>(Eigen::Map<const Matrix<double>>(reinterpret_cast<const double*>(data.data()), data.shape().rows(), data.shape().cols()));
    };
    const double s = 7.0 / 3;
    const Matrix<double> w = probe.net.inner.site->weight.view() - s * matrix(start.b) * matrix(start.a), delta = s * b * a;
    Matrix<double> y = x * w.transpose();
    y.rowwise() += probe.net.inner.site->bias.view().row(0);
    if (!use_dora) {
      y += left * delta.transpose();
    } else {
      const Eigen::RowVectorXd m = Eigen::Map<const Eigen::RowVectorXd>(probe.net.inner.site.parameter("a", "lora_magnitude_vector").view<double>().data(), 7);
      const Eigen::RowVectorXd c = m.array() / (w + delta).rowwise().norm().transpose().array();
      y += left * w.transpose() * (c.array() - 1).matrix().asDiagonal();
      y += left * delta.transpose() * c.asDiagonal();
    }
    CHECK(results::same_values(probe.forward(), y));
  }
}
TEST_CASE("the layer's own weight and bias have their gradients under DoRA, with dropout and without") {
  for (const double p : {0.0, 0.4}) {
    Probe<LinearCase> probe;
    graft::LoraConfig config = without_biases(laws::DoraMethod<LinearCase>::config());
    config.lora_dropout = p;
    trained::inject(config, probe.net, "a");
    probe.dropout = {true, 2, 9};
    graft::Linear<double>& layer = *probe.net.inner.site.operator->();
    layer.weight.set_requires_grad(true);
    layer.bias.set_requires_grad(true);
    site_gradients::hold_norms(probe, "a");
    probe.settle = [&layer, held = probe.settle] {
      layer.weight.untyped().touch();  // norms are kept until it is written
      held();
    };
    probe.backward(false);
    for (graft::Parameter<double>* own : {&layer.weight, &layer.bias}) {
      double* const data = own->data();
      probe.check({"own", data, own->size(), probe.gradients.of(*own).data()});
    }
  }
}
TEST_CASE("a dropout of 1 leaves nothing of the input, and the result is finite") {
  Probe<LinearCase> probe;
  trained::inject(graft::LoraConfig{.r = 3, .lora_dropout = 1, .target_modules = {"site"}}, probe.net, "a");
  probe.dropout = {true, 1, 1};
  CHECK(results::same_values(probe.forward(), probe.net.inner.site.base_layer()(probe.x.rows)));
  probe.backward();
  CHECK(probe.dx.allFinite());
  CHECK(probe.gradients.of(probe.net.inner.site->weight).norm() == 0);
  CHECK(probe.gradients.of<double>(probe.net.inner.site.parameter("a", "lora_B")).norm() == 0);
}

TEST_CASE("an adapter that stays narrow has gradients in float") {
  std::vector<Matrix<float>> found[2];
  for (const bool is_narrow : {false, true}) {
    Probe<awkward::LinearCase<float>> probe;
    trained::inject(graft::LoraConfig{.r = 3, .target_modules = {"site"}, .use_dora = true}, probe.net, "lora", 1);
    trained::inject(graft::AdaLoraConfig{.init_r = 3, .target_r = 1, .target_modules = {"site"}}, probe.net, "adalora", 2);
    trained::inject(graft::Ia3Config{.target_modules = {"site"}}, probe.net, "ia3", 3);
    graft::set_adapter(probe.net, {"lora", "adalora", "ia3"});
    graft::set_requires_grad(probe.net, {"lora", "adalora", "ia3"}, true);
    for (const char* name : {"lora", "adalora", "ia3"})
      for (const graft::AdapterParameter& parameter : probe.table()->find(name)->state()->parameters()) {
        if (!parameter.is_saved) continue;
        const graft::ParameterData wide = *parameter.data;
        if (is_narrow) {
          parameter.data->reset(wide.shape(), graft::Dtype::bf16);
          parameter.data->allocate();
        }
        for (Index i = 0; i < wide.shape().size(); ++i) {
          const graft::bf16 value(graft::element_as<float>(wide.dtype(), wide.data(), std::size_t(i)));
          if (is_narrow) reinterpret_cast<graft::bf16*>(parameter.data->data())[i] = value;
          else reinterpret_cast<float*>(parameter.data->data())[i] = float(value);
        }
        parameter.data->set_viewed();
      }
    probe.backward();
    found[is_narrow].push_back(probe.dx);
    for (const char* name : {"lora", "adalora", "ia3"})
      for (const graft::AdapterParameter& parameter : probe.table()->find(name)->state()->parameters())
        if (parameter.is_saved) found[is_narrow].push_back(probe.gradients.of<float>(graft::ParameterView(*parameter.data)));
  }
  REQUIRE(found[0].size() == 8);
  for (std::size_t i = 0; i < 8; ++i) {
    REQUIRE(found[0][i].norm() > 0.1);
    CHECK(results::same_bits(found[0][i], found[1][i]));
  }
}

namespace {
struct Attentive {
  graft::Adaptable<graft::MultiheadAttention<double>> attention{6, 2};
  GRAFT_MODULE(attention)
};
}  // namespace

TEST_CASE("slices of a packed projection have together the gradients of the whole") {
  Attentive net;
  graft::initialise(net, 3);
  trained::inject(graft::LoraConfig{.r = 2, .target_modules = {"attention"}}, net, "a");
  const graft::SiteTable* table = graft::SiteAccess<decltype(net.attention)>::table(std::as_const(net.attention));
  using Packed = graft::PackedProjection<double>;
  using Slice = graft::detail::ProjectionSlice<Packed>;
  const Packed& packed = net.attention.base_layer();
  const Matrix<double> x = awkward::rows<double>(4, 6), dy = awkward::rows<double>(4, 18, 5);
  const graft::detail::OneSequence one(4);
  graft::Gradients whole, parts;
  Matrix<double> dx = Matrix<double>::Zero(4, 6), d_parts = dx, written = dy, y(4, 18);
  const graft::SiteVjp<Slice, graft::Lora> vjp(Slice{&packed, 0, 18}, table, one.view());
  vjp.forward({.rows = graft::in<double>(x)}, graft::out(y), nullptr);
  vjp.backward({.rows = graft::in<double>(x)}, nullptr, graft::out(written), graft::out(dx), whole);
  for (const Index begin : {0, 5, 12}) {
    const Index count = begin == 0 ? 5 : begin == 5 ? 7 : 6;
    const graft::SiteVjp<Slice, graft::Lora> slice(Slice{&packed, begin, count}, table, one.view());
    Matrix<double> here = dy.middleCols(begin, count), z(4, count);
    slice.forward({.rows = graft::in<double>(x)}, graft::out(z), nullptr);
    CHECK(results::same_values(z, Matrix<double>(y.middleCols(begin, count))));
    slice.backward({.rows = graft::in<double>(x)}, nullptr, graft::out(here), graft::out(d_parts), parts);
  }
  CHECK(results::same_values(d_parts, dx));
  for (const char* name : {"lora_A", "lora_B"}) {
    REQUIRE(whole.of<double>(net.attention.parameter("a", name)).norm() > 0.1);
    CHECK(results::same_values(parts.of<double>(net.attention.parameter("a", name)), whole.of<double>(net.attention.parameter("a", name))));
  }
}
