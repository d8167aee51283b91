#include <doctest/doctest.h>

#include <functional>
#include <graft/graft.hpp>
#include <graft/quantized.hpp>

#include "support/ramp.hpp"
#include "support/results.hpp"
#include "support/trained.hpp"

using graft::Adaptable;
using graft::Batch;
using graft::EigenProduct;
using graft::In;
using graft::Index;
using graft::KernelProduct;
using graft::Linear;
using graft::Matrix;
using graft::Out;
using results::same_bits;
using results::same_values;
using support::close;
using support::ramp;

namespace {

// F.linear(ramp(3, 5, salt=1), ramp(7, 5, salt=2), ramp(7, salt=3)): exact in float
const std::vector<double> with_bias{-1.703125, -2.796875, -1.015625, -2.109375, -0.328125, 0.015625,  -1.078125,
                                    -1.53125,  -2.90625,  -1.046875, -2.0625,   -0.203125, -0.140625, -1.15625,
                                    -0.640625, -2.65625,  -1.078125, -2.375,    -0.796875, -1.375,    -2.671875};

/// A host's engine: a plain loop that counts its calls and the rows that it was given.
struct Engine {
  int* calls;
  Index* rows;
  template <class T, class W>
  void operator()(const In<T>& x, const In<W>& weight, Out<T> y) const {
    ++*calls;
    *rows += x.rows();
    for (Index i = 0; i < y.rows(); ++i)
      for (Index o = 0; o < y.cols(); ++o) {
        double sum = 0;
        for (Index k = 0; k < x.cols(); ++k) sum += double(x(i, k)) * double(float_of(weight.data()[o * weight.outerStride() + k]));
        y(i, o) = T(sum);
      }
  }
  template <class W>
  static auto float_of(W value) {
    if constexpr (std::is_floating_point_v<W>) return value;
    else return float(value);
  }
};
using Function = std::function<void(const In<float>&, const In<float>&, Out<float>)>;

template <class L>
L filled(L made) {
  support::fill_ramp(made.weight, 2);
  support::fill_ramp(made.bias, 3);
  return made;
}
template <class T, class Product>
using Layer = Linear<T, graft::dense, Product>;

static_assert(graft::LinearProduct<EigenProduct, float> && graft::LinearProduct<EigenProduct, double>);
static_assert(!graft::LinearProduct<EigenProduct, float, graft::bf16> && graft::LinearProduct<KernelProduct, float, graft::bf16>);
static_assert(graft::LinearProduct<Function, float> && !graft::LinearProduct<Function, double>);
static_assert(sizeof(Linear<>) == sizeof(Linear<float, graft::dense, EigenProduct>));


/// Sites over a product; the counters stay where they are, the model may be copied.
template <class T, class Product>
struct Net {
  Adaptable<Layer<T, Product>> q, v, head;
  explicit Net(Product product = Product()) : q(13, 17, true, product), v(17, 7, false, product), head(7, 5, true, product) {
    graft::initialise(*this, 5);
    support::fill_ramp(q->bias, 4);
  }
  auto operator()(const auto& x) const { return head(v(q(x))); }
  GRAFT_MODULE(q, v, head)
};

template <class M>
void inject_all(M& model) {
  trained::inject(graft::LoraConfig{.r = 3, .lora_alpha = 7, .target_modules = {"q", "v"}, .modules_to_save = {"head"}}, model, "lora", 1);
  trained::inject(graft::LoraConfig{.r = 2, .lora_alpha = 5, .bias = graft::Bias::lora_only, .target_modules = {"q"}, .use_dora = true},
                  model, "dora", 2);
  trained::inject(graft::AdaLoraConfig{.init_r = 3, .target_r = 2, .target_modules = {"v"}}, model, "adalora", 3);
  trained::inject(graft::Ia3Config{.target_modules = {"q", "v"}, .feedforward_modules = {"v"}}, model, "ia3", 4);
  graft::set_adapter(model, {"lora"});
}

template <class M, class T>
Matrix<T> mixed(const M& model, const Matrix<T>& x) {
  Batch batch;
  batch.add(1, graft::select(model, {{"lora"}}))
      .add(2, graft::base_only())
      .add(1, graft::select(model, {{"dora", 0.5}}))
      .add(2, graft::select(model, {{"adalora"}, {"ia3"}}))
      .add(1, graft::select(model, {{"lora"}}))
      .add(2);
  return Matrix<T>(model(batch.input(x)).value());
}

/// Every law of a site, over a product and over graft's: values agree, and the base keeps its bits.
template <class T, class Product>
void check_sites(const Product& product) {
  Net<T, Product> model(product);
  Net<T, KernelProduct> own;
  const Matrix<T> x = ramp<T>(9, 13, 1);
  const Matrix<T> base = model(x);
  CHECK(same_values(base, own(x)));
  inject_all(model);
  inject_all(own);
  CHECK(graft::repr(model) == graft::repr(own));
  CHECK(results::bytes_of(graft::get_peft_model_state_dict(model, "dora")) == results::bytes_of(graft::get_peft_model_state_dict(own, "dora")));
  for (const char* name : {"lora", "dora", "adalora", "ia3"}) {
    graft::set_adapter(model, {name});
    graft::set_adapter(own, {name});
    CHECK(!same_values(model(x), base));
    CHECK(same_values(model(x), own(x)));
  }
  const auto in_batch = mixed(model, x);
  CHECK(same_values(in_batch, mixed(own, x)));
  {
    Batch batch;
    batch.add(9, graft::base_only());
    const Matrix<T> without = model(batch.input(x)).value();
    CHECK(same_bits(Matrix<T>(without.middleRows(1, 2)), Matrix<T>(in_batch.middleRows(1, 2))));
    CHECK(same_bits(without, base));
    Matrix<T> through(9, 17);
    model.q(x, batch, through);
    CHECK(same_bits(through, Matrix<T>(model.q.base_layer()(x))));
  }
  {
    const auto off = graft::disable_adapter(model);
    CHECK(same_bits(Matrix<T>(model(x)), base));
  }
  graft::set_adapter(model, {"dora"});
  const Matrix<T> unmerged = model(x);
  graft::merge_adapter(model);
  CHECK(same_values(Matrix<T>(model(x)), unmerged));
  graft::unmerge_adapter(model);
}

}  // namespace

TEST_CASE("every product is torch's linear layer, in both precisions and for one row") {
  int calls = 0;
  Index rows = 0;
  const Engine engine{&calls, &rows};
  const Matrix<> x = ramp(3, 5, 1);
  const Matrix<double> wide = ramp<double>(3, 5, 1);
  CHECK(close(filled(Layer<float, EigenProduct>(5, 7))(x), with_bias, 0));
  CHECK(close(filled(Layer<double, EigenProduct>(5, 7))(wide), with_bias, 0));
  CHECK(close(filled(Layer<float, Engine>(5, 7, true, engine))(x), with_bias, 0));
  CHECK(close(filled(Layer<double, Engine>(5, 7, true, engine))(wide), with_bias, 0));
  CHECK(calls == 2);
  CHECK(rows == 6);
  const Function function = [](const auto& a, const auto& w, auto y) { KernelProduct()(a, w, y); };
  CHECK(close(filled(Layer<float, Function>(5, 7, true, function))(x), with_bias, 0));
  const auto lambda = [](const In<float>& a, const In<float>& w, Out<float> y) { y = a * w.transpose(); };
  CHECK(close(filled(Layer<float, decltype(lambda)>(5, 7))(x), with_bias, 0));
  const auto eigen = filled(Layer<float, EigenProduct>(5, 7));
  for (Index i = 0; i < 3; ++i)
    CHECK(close(eigen(Matrix<>(x.row(i))), {with_bias.begin() + 7 * i, with_bias.begin() + 7 * (i + 1)}, 0));
  CHECK(eigen(Matrix<>(0, 5)).rows() == 0);
  CHECK_THROWS_AS(eigen(Matrix<>(2, 7)), graft::ShapeError);
}

TEST_CASE("a product sees strided views, and features last") {
  int calls = 0;
  Index rows = 0;
  const auto layer = filled(Layer<float, Engine>(5, 7, true, {&calls, &rows}));
  const auto eigen = filled(Layer<float, EigenProduct>(5, 7));
  Matrix<> wide = Matrix<>::Constant(5, 9, 100);
  wide.block(1, 2, 3, 5) = ramp(3, 5, 1);
  CHECK(close(layer(wide.block(1, 2, 3, 5)), with_bias, 0));
  CHECK(close(eigen(wide.block(1, 2, 3, 5)), with_bias, 0));
  Eigen::Tensor<float, 3, Eigen::RowMajor> tensor(1, 3, 5);
  support::fill_ramp(tensor, 1);
  const auto y = layer(tensor);
  CHECK(close(Eigen::Map<const Matrix<>>(y.data(), 3, 7), with_bias, 0));
  CHECK(calls == 2);
  Batch batch;
  batch.add(3);
  CHECK(close(Matrix<>(layer(batch.input(ramp(3, 5, 1))).value()), with_bias, 0));
}

TEST_CASE("nothing is asked of a product where there is nothing to sum") {
  int calls = 0;
  Index rows = 0;
  const auto layer = filled(Layer<float, Engine>(0, 3, true, {&calls, &rows}));
  CHECK(same_bits(layer(Matrix<>(1, 0)), ramp(1, 3, 3)));
  CHECK(filled(Layer<float, Engine>(5, 7, true, {&calls, &rows}))(Matrix<>(0, 5)).size() == 0);
  CHECK(calls == 0);
}

TEST_CASE("a host's product may take narrow weights") {
  int calls = 0;
  Index rows = 0;
  const Matrix<> x = ramp(3, 5, 1);
  const auto own = filled(Linear<graft::bf16>(5, 7));
  const auto hosts = filled(Layer<graft::bf16, Engine>(5, 7, true, {&calls, &rows}));
  CHECK(close(own(x), with_bias, 0));  // eighths up to 11 are bf16
  CHECK(close(hosts(x), with_bias, 0));
  CHECK(calls == 1);
}

TEST_CASE("the free function takes a product too") {
  const Matrix<> x = ramp(3, 5, 1), w = ramp(7, 5, 2), b = ramp(1, 7, 3);
  int calls = 0;
  Index rows = 0;
  const Engine engine{&calls, &rows};
  const graft::Matrix<> none = graft::linear(x, w);
  CHECK(same_bits(graft::linear(x, w, engine), none));
  CHECK(close(graft::linear(x, w, Eigen::RowVectorXf(b), engine), with_bias, 0));
  const auto layer = filled(Linear<>(5, 7));
  CHECK(same_bits(graft::linear(x, layer.weight, EigenProduct()), none));
  CHECK(close(graft::linear(x, layer.weight, layer.bias, EigenProduct()), with_bias, 0));
  CHECK(calls == 2);
}

TEST_CASE("sites over Eigen's product") {
  check_sites<float>(EigenProduct());
  check_sites<double>(EigenProduct());
}

TEST_CASE("sites over the host's callable") {
  int calls = 0;
  Index rows = 0;
  check_sites<float>(Engine{&calls, &rows});
  check_sites<double>(Engine{&calls, &rows});
  CHECK(calls > 0);
  check_sites<float>(Function(KernelProduct()));
}

TEST_CASE("a mixed batch is one call for all rows at every site, copies aside") {
  int calls = 0;
  Index rows = 0;
  Net<float, Engine> model({&calls, &rows});
  inject_all(model);
  calls = 0, rows = 0;
  const Matrix<> x = ramp(9, 13, 1);
  (void)mixed(model, x);
  // q once; v once; head once, and once more for the rows of lora (1 + 1 + the 2 active ones), which have a copy of it
  CHECK(rows == 9 + 9 + 9 + 4);
  CHECK(calls >= 4);
  calls = 0;
  Batch batch;
  batch.add(9, graft::base_only());
  (void)model(batch.input(x));
  CHECK(calls == 3);
}

TEST_CASE("a quantised layer is made of a layer whatever its product") {
  const auto layer = filled(Layer<float, EigenProduct>(64, 3));
  const auto plain = filled(Linear<>(64, 3));
  CHECK(same_bits(graft::QuantizedLinear::quantize(layer).dequantize(), graft::QuantizedLinear::quantize(plain).dequantize()));
}
