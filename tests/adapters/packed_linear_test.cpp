#include <graft/adapters/packed_linear.hpp>

#include <doctest/doctest.h>

#include <graft/graft.hpp>

#include "support/ramp.hpp"
#include "support/results.hpp"
#include "support/trained.hpp"

using graft::Adaptable;
using graft::Batch;
using graft::Index;
using graft::Matrix;
using graft::PackedLinear;
using results::everything;
using results::same_bits;
using results::same_values;
using support::ramp;

namespace {

constexpr Index width = 7, q_out = 6, k_out = 3, v_out = 4, all_out = q_out + k_out + v_out;

/// What the Python twin has.
template <class W>
struct Separate {
  Adaptable<graft::Linear<W>> q_proj{width, q_out}, k_proj{width, k_out}, v_proj{width, v_out}, o_proj{all_out, width};
  Separate() { graft::initialise(*this, 3); }
  auto qkv(const auto& x) const { return graft::concat(graft::concat(q_proj(x), k_proj(x)), v_proj(x)); }
  auto operator()(const auto& x) const { return o_proj(qkv(x)); }
  GRAFT_MODULE(q_proj, k_proj, v_proj, o_proj)
};
template <class L>
struct PackedOf : PackedLinear<L, "q_proj", "k_proj", "v_proj"> {
  using Projection = PackedLinear<L, "q_proj", "k_proj", "v_proj">;
  using W = typename graft::layer_traits<L>::scalar;
  Adaptable<graft::Linear<W>> o_proj{all_out, width};
  explicit PackedOf(L layer) : Projection(std::move(layer), {q_out, k_out, v_out}) { graft::initialise(*this, 3); }
  auto qkv(const auto& x) const { return Projection::operator()(x); }
  auto operator()(const auto& x) const { return o_proj(qkv(x)); }
  GRAFT_MODULE_FROM(Projection, o_proj)
};
template <class W>
struct Packed : PackedOf<graft::Linear<W>> {
  using Base = PackedOf<graft::Linear<W>>;
  Packed() : Base(graft::Linear<W>(width, all_out)) {}
  GRAFT_MODULE_FROM(Base)
};
static_assert(graft::has_site<Packed<float>>("q_proj") && graft::has_site<Packed<float>>("o_proj"));
static_assert(graft::paths<Packed<float>>.size() == 5 && !graft::has_module<Packed<float>>("weight"));

/// An engine's layer that knows nothing of graft: column-major, called with the batch behind it.
struct Fused {
  Eigen::MatrixXf kernel = Eigen::MatrixXf::Zero(all_out, width);
  Eigen::VectorXf offsets = Eigen::VectorXf::Zero(all_out);
  [[nodiscard]] Matrix<> run(const auto& x) const { return (x * kernel.transpose()).rowwise() + offsets.transpose(); }
};
}  // namespace

template <>
struct graft::layer_traits<Fused> {
  using scalar = float;
  static constexpr LayerKind kind = LayerKind::linear;
  static Index in_features(const Fused&) { return width; }
  static Index out_features(const Fused&) { return all_out; }
  static auto& weight(auto& layer) { return layer.kernel; }
  static auto& bias(auto& layer) { return layer.offsets; }
  static auto forward(const Fused& layer, const auto& x) { return layer.run(x); }
};

namespace {

void adapt(const graft::PeftConfig& config, auto& model) {
  trained::inject(config, model, "a", 20);
  graft::PeftConfig second = config;
  if (auto* lora = std::get_if<graft::LoraConfig>(&second)) {
    lora->r = 5;
    lora->bias = graft::Bias::none;  // only one adapter trains them
  }
  trained::inject(second, model, "b", 21);
}
/// "a", the base, both with weights, and what is active.
template <class M, class T>
Matrix<T> mixed(const M& model, const Matrix<T>& x) {
  Batch batch;
  batch.add(2, graft::select(model, {{"a", 1}})).add(2, graft::base_only()).add(2, graft::select(model, {{"b", 0.5}, {"a", -2}})).add(2);
  return model(batch.input(x)).value();
}

/// Everything that a packed model does has the bits that it has where the layers are separate.
template <class W>
void is_as_separate(const graft::PeftConfig& config) {
  using T = graft::compute_scalar<W>;
  const Matrix<T> x = ramp<T>(8, width, 1);
  Separate<W> separate;
  Packed<W> packed;
  const Matrix<T> base = packed(x);
  CHECK(same_bits(base, separate(x)));
  CHECK(everything(packed) == everything(separate));
  adapt(config, separate);
  adapt(config, packed);
  CHECK(everything(packed) == everything(separate));
  CHECK(graft::repr(packed).substr(graft::repr(packed).find('\n')) == graft::repr(separate).substr(graft::repr(separate).find('\n')));
  const Matrix<T> with = packed(x), rows = mixed(packed, x);
  REQUIRE_FALSE(same_values(with, base));
  CHECK(same_bits(with, separate(x)));
  CHECK(same_bits(rows, mixed(separate, x)));
  REQUIRE_FALSE(same_values(Matrix<T>(rows.topRows(2)), Matrix<T>(base.topRows(2))));
  CHECK(same_bits(Matrix<T>(rows.middleRows(2, 2)), Matrix<T>(base.middleRows(2, 2))));
  {
    const auto off = graft::disable_adapter(packed);
    CHECK(same_bits(packed(x), base));
  }
  // a copy has adapters and memory of its own
  Packed<W> copy = packed;
  graft::delete_adapter(copy, "b");
  copy.base_layer().weight.view().setZero();
  CHECK(same_bits(packed(x), with));
  REQUIRE_FALSE(same_values(copy(x), with));
  copy = packed;
  CHECK(same_bits(copy(x), with));
  Packed<W> moved = std::move(copy);
  CHECK(same_bits(moved(x), with));
  copy = std::move(moved);
  CHECK(same_bits(copy(x), with));
  if constexpr (std::is_same_v<W, T>) {
    (void)graft::merge_adapter(packed);
    (void)graft::merge_adapter(separate);
    CHECK(same_values(packed(x), with));
    CHECK(same_bits(packed(x), separate(x)));
    CHECK(everything(packed) == everything(separate));
    (void)graft::unmerge_adapter(packed);
    CHECK(same_values(packed(x), with));
  }
}

template <class W>
void is_as_separate_by_all_methods() {
  const graft::TargetModules some{"q_proj", "v_proj"};
  is_as_separate<W>(graft::LoraConfig{.r = 3, .lora_alpha = 7, .target_modules = some});
  is_as_separate<W>(graft::LoraConfig{.r = 3, .lora_alpha = 7, .bias = graft::Bias::all, .target_modules = some, .use_dora = true});
  is_as_separate<W>(graft::LoraConfig{.r = 3, .lora_alpha = 7, .target_modules = {"k_proj"}, .lora_bias = true});
  is_as_separate<W>(graft::AdaLoraConfig{.init_r = 3, .target_r = 1, .lora_alpha = 7, .target_modules = some});
  is_as_separate<W>(graft::Ia3Config{.target_modules = {"q_proj", "k_proj", "o_proj"}, .feedforward_modules = {"k_proj", "o_proj"}});
}

Packed<float> packed_with_lora() {
  Packed<float> model;
  trained::inject(graft::LoraConfig{.r = 3, .lora_alpha = 7, .target_modules = {"q_proj", "v_proj"}}, model, "a");
  return model;
}

}  // namespace

TEST_CASE("a packed layer is its slices as separate layers, for every method and verb") {
  is_as_separate_by_all_methods<double>();
  is_as_separate_by_all_methods<float>();
  is_as_separate_by_all_methods<graft::bf16>();
}

TEST_CASE("a whole slice may be saved with an adapter") {
  const Matrix<float> x = ramp<float>(8, width, 1);
  const graft::LoraConfig config{.r = 3, .lora_alpha = 7, .target_modules = {"q_proj"}, .modules_to_save = {"v_proj"}};
  Separate<float> separate;
  Packed<float> packed;
  const Matrix<float> base = packed(x);
  trained::inject(config, separate, "a");
  trained::inject(config, packed, "a");
  CHECK(everything(packed) == everything(separate));
  REQUIRE_FALSE(same_values(Matrix<float>(packed.qkv(x).rightCols(v_out)), Matrix<float>(Packed<float>{}.qkv(x).rightCols(v_out))));
  CHECK(same_bits(packed(x), separate(x)));
  const Matrix<float> with = packed(x);
  (void)graft::merge_and_unload(packed);
  (void)graft::merge_and_unload(separate);
  CHECK(everything(packed) == everything(separate));
  CHECK(same_values(packed(x), with));
  REQUIRE_FALSE(same_values(packed(x), base));
}

TEST_CASE("the engine's doors and tensors give the same") {
  const Packed<float> model = packed_with_lora();
  const auto& qkv = static_cast<const Packed<float>::Projection&>(model);
  const Matrix<float> x = ramp<float>(6, width, 1);
  Batch batch;
  batch.add(2, graft::base_only()).add(4, graft::select(model, {{"a", 0.5}}));
  const Matrix<float> wanted = model.qkv(batch.input(x)).value();
  REQUIRE_FALSE(same_values(wanted, qkv(x)));
  CHECK(same_bits(qkv(x, batch), wanted));
  Matrix<float> y(6, all_out);
  qkv(x, batch, y);
  CHECK(same_bits(y, wanted));
  Eigen::MatrixXf columns(6, all_out);
  qkv(x, batch, columns);
  CHECK(same_bits(Matrix<float>(columns), wanted));
  y = Packed<float>{}.qkv(x);
  qkv.update(batch, x, y);
  CHECK(same_bits(y, wanted));
  Eigen::Tensor<float, 3, Eigen::RowMajor> tensor(2, 3, width);
  std::copy_n(x.data(), x.size(), tensor.data());
  const auto z = qkv(tensor, batch);
  CHECK(z.dimension(1) == 3);
  CHECK(same_bits(Matrix<float>(Eigen::Map<const Matrix<float>>(z.data(), 6, all_out)), wanted));
  CHECK(same_bits(Matrix<float>(Eigen::Map<const Matrix<float>>(qkv(tensor).data(), 6, all_out)), qkv(x)));
  CHECK(same_bits(qkv.part<"k_proj">(y), Matrix<float>(wanted.middleCols(q_out, k_out))));
  CHECK(same_bits(qkv.site<"v_proj">()(x), Matrix<float>(qkv(x).rightCols(v_out))));
}

TEST_CASE("a fused layer of an engine has the slices of its twin") {
  const Matrix<float> x = ramp<float>(8, width, 1);
  Separate<float> separate;
  PackedOf<Fused> packed{Fused{}};
  (void)graft::set_base_model_state_dict(packed, graft::get_base_model_state_dict(separate));
  CHECK(everything(packed) == everything(separate));
  const graft::LoraConfig config{.r = 3, .lora_alpha = 7, .target_modules = {"q_proj", "v_proj"}, .use_dora = true};
  adapt(config, separate);
  adapt(config, packed);
  REQUIRE_FALSE(same_values(packed(x), PackedOf<Fused>{Fused{}}(x)));
  CHECK(same_values(packed(x), separate(x)));
  CHECK(same_values(mixed(packed, x), mixed(separate, x)));
  const Matrix<float> with = packed(x);
  (void)graft::merge_adapter(packed);
  CHECK(same_values(Matrix<float>(packed.base_layer().run(x)), Matrix<float>(packed.qkv(x))));
  CHECK(same_values(packed(x), with));
  (void)graft::unmerge_adapter(packed);
  trained::inject(graft::Ia3Config{.target_modules = {"k_proj"}, .feedforward_modules = {"k_proj"}}, packed, "scales");
  trained::inject(graft::Ia3Config{.target_modules = {"k_proj"}, .feedforward_modules = {"k_proj"}}, separate, "scales");
  CHECK(same_values(packed(x), separate(x)));
}

TEST_CASE("what does not fit is refused") {
  using Two = PackedLinear<graft::Linear<>, "gate_proj", "up_proj">;
  const auto made = [](std::array<Index, 2> outputs) { return Two(graft::Linear<>(5, 8), outputs); };
  CHECK_NOTHROW((void)made({8, 0}));
  CHECK_THROWS_WITH_AS((void)made({4, 3}), doctest::Contains("(4, 3) outputs for a layer of 8"), graft::ShapeError);
  CHECK_THROWS_AS((void)made({9, -1}), graft::ShapeError);
  const Two layer = made({4, 4});
  CHECK_THROWS_AS((void)layer(ramp<float>(2, 4)), graft::ShapeError);
  Batch batch;
  batch.add(2);
  Matrix<float> narrow(2, 7);
  CHECK_THROWS_WITH_AS(layer.update(batch, ramp<float>(2, 5), narrow), doctest::Contains("7 columns for a packed layer of 8"), graft::ShapeError);
  CHECK_THROWS_AS((void)layer(ramp<float>(3, 5), batch), graft::ShapeError);
}
