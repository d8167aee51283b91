#include <graft/io/as_file.hpp>

#include <doctest/doctest.h>

#include <graft/io.hpp>

#include "io/temporary_directory.hpp"
#include "support/expert_model.hpp"
#include "support/results.hpp"
#include "support/trained.hpp"

using graft::AdapterDtype;
using graft::Index;
using graft::Matrix;
using results::same_bits;
using results::same_values;

namespace {

const std::filesystem::path golden = std::filesystem::path(GRAFT_TEST_DATA) / "narrow";
using Images = Eigen::Tensor<float, 4, Eigen::RowMajor>;

/// As in tests/data/narrow/make.py.
struct Net {
  graft::Adaptable<graft::Embedding<>> emb{11, 8};
  graft::Adaptable<graft::Linear<>> lin{8, 7};
  graft::Adaptable<graft::Conv2d<>> conv{2, 3, graft::Conv2dOptions{.kernel = {3, 2}, .padding = {1, 0}}};
  auto operator()(const auto& ids) const { return lin(emb(ids)); }
  GRAFT_MODULE(emb, lin, conv)
};
/// What each site answers, side by side.
struct Answers {
  std::vector<float> emb, lin, conv;
  friend bool operator==(const Answers&, const Answers&) = default;
};
template <class M>
Answers answers(const M& net, Index rows = 5) {
  const auto images = [&] {
    Images x(2, 2, 4, 5);
    awkward::fill(x, 3);
    return x;
  };
  return {results::values_of(net.emb(awkward::ids(rows, 11))), results::values_of(net.lin(awkward::rows<float>(rows, 8, 2))),
          results::values_of(net.conv(images()))};
}
bool are_close(const Answers& a, const Answers& b) {
  return results::close(a.emb, b.emb) && results::close(a.lin, b.lin) && results::close(a.conv, b.conv);
}

struct Attentive {
  graft::Adaptable<graft::MultiheadAttention<float>> attn{15, 5};
  Attentive() {
    awkward::fill<float>(attn->in_proj_weight.untyped(), 1);
    awkward::fill<float>(attn->in_proj_bias.untyped(), 2);
    awkward::fill<float>(attn->out_proj.base_layer().weight.untyped(), 3);
  }
  auto operator()(const auto& x) const { return attn(x, {.causal = true}); }
  GRAFT_MODULE(attn)
};
/// The same as Net in double.
struct Wide {
  graft::Adaptable<graft::Linear<double>> lin{8, 7};
  graft::Adaptable<graft::Conv2d<double>> conv{2, 3, graft::Conv2dOptions{.kernel = {3, 2}, .padding = {1, 0}}};
  GRAFT_MODULE(lin, conv)
};
struct Tied {
  graft::Adaptable<graft::Embedding<>> emb{7, 3};
  graft::Adaptable<graft::Linear<>> head{3, 7, false};
  Tied() {
    awkward::fill<float>(emb->weight.untyped(), 1);
    head->weight = emb->weight.share();
  }
  auto operator()(const auto& ids) const { return head(emb(ids)); }
  GRAFT_MODULE(emb, head)
};

graft::TensorView cast(const graft::TensorView& view, graft::Dtype dtype) {
  const std::shared_ptr<std::byte> bytes = graft::detail::zeroed(std::size_t(view.size()) * graft::size_of(dtype));
  graft::detail::convert(view.dtype, view.data, dtype, bytes.get(), view.size());
  return {dtype, view.shape, bytes.get(), bytes};
}

Net base() {
  Net net;
  graft::initialise(net, 5);
  return net;
}
const char* const folders[] = {"lora_bf16", "dora_f16", "adalora_bf16", "ia3_f16"};

template <class M>
graft::ParameterData& parameter_of(M& net, std::size_t site, std::size_t place = 0) {
  const graft::ModelSites sites = graft::sites_of(net);
  return *sites.sites[site]->table()->entries.front().state()->parameters()[place].data;
}

}  // namespace

TEST_CASE("PEFT's narrow adapters compute what PEFT computes, and come back byte for byte") {
  for (const char* name : folders)
    for (const bool mapped : {false, true})
      for (const bool meta : {false, true}) {
        CAPTURE(name);
        const graft::StateDict expected = graft::safetensors::load_file(golden / name / "expected.safetensors");
        Net net;
        graft::StateDict weights;
        for (const auto& [key, view] : expected)
          if (key.starts_with("base.")) weights.insert(key.substr(5), view);
        (void)graft::set_base_model_state_dict(net, weights);
        const auto report = graft::load_adapter(net, golden / name, "default",
                                                {.low_cpu_mem_usage = meta, .mapped = mapped, .dtype = AdapterDtype::as_file});
        CHECK(report.cast_keys.empty());
        const auto values = [&](const std::string& key) {
          const graft::TensorView& view = expected.at(key);
          Matrix<float> all(1, view.size());
          for (Index i = 0; i < view.size(); ++i) all(i) = graft::element_as<float>(view.dtype, view.data, std::size_t(i));
          return all;
        };
        Images images(2, 2, 4, 5);
        std::copy_n(values("input.conv").data(), images.size(), images.data());
        CHECK(results::close(results::values_of(net.conv(images)), results::values_of(values("output.conv"))));
        const Matrix<float> x = values("input.lin").reshaped<Eigen::RowMajor>(5, 8);
        CHECK(results::close(results::values_of(net.lin(x)), results::values_of(values("output.lin"))));
        for (Index i = 0; i < 5; ++i)  // alone, a row reads the matrices as they are stored
          CHECK(results::close(results::values_of(Matrix<float>(net.lin(Matrix<float>(x.row(i))))),
                               results::values_of(Matrix<float>(values("output.lin").middleCols(7 * i, 7)))));
        CHECK(results::close(results::values_of(net.emb(std::vector<int>{3, 0, 10, 3, 7})), results::values_of(values("output.emb"))));

        const TemporaryDirectory there;
        (void)graft::save_pretrained(net, there.path());
        CHECK(read_text(there.path() / "adapter_model.safetensors") == read_text(golden / name / "adapter_model.safetensors"));
      }
}

TEST_CASE("results are those of the adapter cast to float, bit by bit, for any number of rows") {
  for (const char* name : folders) {
    CAPTURE(name);
    Net narrow = base(), wide = base();
    const Answers off = answers(wide);
    (void)graft::load_adapter(narrow, golden / name, "default", {.dtype = AdapterDtype::as_file});
    const auto report = graft::load_adapter(wide, golden / name);
    CHECK(report.cast_keys == report.loaded);
    REQUIRE_FALSE(answers(wide) == off);
    for (const Index rows : {1, 2, 4, 5, 31, 32, 40}) CHECK(answers(narrow, rows) == answers(wide, rows));
    for (Net* net : {&narrow, &wide}) graft::set_scale(*net, "default", -0.5);
    CHECK(answers(narrow) == answers(wide));
    for (Net* net : {&narrow, &wide}) graft::set_scale(*net, "default", 1);
    const auto batched = [&](const Net& net) {
      graft::Batch batch;
      batch.add(1, graft::select(net, {{"default", 0.5}}));
      batch.add(1, graft::base_only());
      batch.add(2);
      return results::values_of(net(batch.input(std::vector<std::int64_t>{3, 1, 10, 2})));
    };
    CHECK(batched(narrow) == batched(wide));
    {
      const auto disabled = graft::disable_adapter(narrow);
      CHECK(answers(narrow) == off);
    }
    const Net copy = narrow;
    CHECK(answers(copy) == answers(wide));
  }
}

TEST_CASE("few rows read narrow matrices as they are stored, more have them widened once") {
  static int updates = 0;
  static Index widened = 0;
  static const graft::detail::NarrowKernels counting{
      [](graft::Dtype dtype, Index count, const std::byte* from, float* to) {
        widened += count;
        graft::detail::widen_narrow(dtype, count, from, to);
      },
      [](graft::Dtype dtype, const graft::In<float>& x, Index r, const std::byte* a, const std::byte* b, const float* e, float scale,
         const float* beta, graft::Out<float> y, float* scratch) {
        ++updates;
        graft::detail::update_narrow(dtype, x, r, a, b, e, scale, beta, y, scratch);
      }};
  Net net = base();
  (void)graft::load_adapter(net, golden / "lora_bf16", "default", {.dtype = AdapterDtype::as_file});
  const auto* const own = std::exchange(graft::detail::narrow_kernels, &counting);
  (void)net.lin(awkward::rows<float>(1, 8));
  (void)net.lin(awkward::rows<float>(4, 8));
  CHECK(updates == 2);
  CHECK(widened == 0);
  (void)net.lin(awkward::rows<float>(5, 8));
  CHECK(updates == 2);
  CHECK(widened == 3 * 8 + 7 * 3);
  graft::detail::narrow_kernels = own;
}

TEST_CASE("narrow adapters are merged as their values in float are, and taken out again") {
  for (const char* name : folders)
    for (const auto how : {graft::Unmerge::by_delta, graft::Unmerge::backup}) {
      CAPTURE(name);
      Net narrow = base(), wide = base();
      (void)graft::load_adapter(narrow, golden / name, "default", {.dtype = AdapterDtype::as_file});
      (void)graft::load_adapter(wide, golden / name);
      const Answers before = answers(narrow);
      for (Net* net : {&narrow, &wide}) (void)graft::merge_adapter(*net, {}, {.unmerge = how});
      CHECK(answers(narrow) == answers(wide));
      CHECK(are_close(answers(narrow), before));
      (void)graft::unmerge_adapter(narrow);
      if (how == graft::Unmerge::backup) CHECK(answers(narrow) == before);
      else CHECK(are_close(answers(narrow), before));
      (void)graft::merge_and_unload(narrow);
      CHECK(are_close(answers(narrow), before));
    }
}

TEST_CASE("a narrow parameter says its dtype, and shows itself as that alone") {
  Net net = base();
  (void)graft::load_adapter(net, golden / "lora_bf16", "default", {.mapped = true, .dtype = AdapterDtype::as_file});
  const auto a = net.lin.parameter("default", "lora_A");
  CHECK(a.dtype() == graft::Dtype::bf16);
  CHECK(parameter_of(net, 1).bytes() == 2 * 3 * 8);
  CHECK(parameter_of(net, 1).is_borrowed());
  try {
    (void)a.view<float>();
    FAIL("nothing was thrown");
  } catch (const graft::ShapeError& error) {
    CHECK(error.problem.find("BF16") != std::string::npos);
    CHECK(error.fix.find("view<graft::bf16>()") != std::string::npos);
    CHECK(error.fix.find("AdapterDtype::compute") != std::string::npos);
  }
  // a write through a view that is held is seen by the next forward
  Net other = base();
  (void)graft::load_adapter(other, golden / "lora_bf16", "default", {.dtype = AdapterDtype::as_file});
  auto held = other.lin.parameter("default", "lora_B").view<graft::bf16>();
  const Matrix<float> x = awkward::rows<float>(1, 8, 2);
  const auto before = other.lin(x);
  held(6, 2) = graft::bf16(float(held(6, 2)) + 4);
  CHECK_FALSE(same_values(other.lin(x), before));
  CHECK(same_bits(net.lin(x), before));
  // what is loaded into it is rounded, and reported
  Net wide = base();
  (void)graft::load_adapter(wide, golden / "lora_bf16");
  trained::fill(wide, "default", 30);
  const auto report = graft::set_peft_model_state_dict(net, graft::get_peft_model_state_dict(wide));
  CHECK(report.cast_keys == report.loaded);
  CHECK(net.lin.parameter("default", "lora_A").dtype() == graft::Dtype::bf16);
  CHECK_FALSE(same_bits(net.lin(x), before));
}

TEST_CASE("each tensor keeps its own dtype: float beside bf16, and an f16 bias") {
  const TemporaryDirectory there;
  Net source = base();
  trained::inject(graft::LoraConfig{.r = 3, .lora_alpha = 7, .bias = graft::Bias::lora_only, .target_modules = {"lin"}, .lora_bias = true},
                  source, "default");
  (void)graft::save_pretrained(source, there.path());
  graft::StateDict mixed;
  for (const auto& [key, view] : graft::load_peft_weights(there.path())) {
    const graft::Dtype dtype = key.ends_with("lora_A.weight") ? graft::Dtype::bf16
                               : key.ends_with("bias")        ? graft::Dtype::f16
                                                              : graft::Dtype::f32;
    mixed.insert(key, cast(view, dtype));
  }
  graft::safetensors::save_file(mixed, there.path() / "adapter_model.safetensors", {{"format", "pt"}});
  Net narrow = base(), wide = base();
  CHECK(graft::load_adapter(narrow, there.path(), "default", {.dtype = AdapterDtype::as_file}).cast_keys.empty());
  CHECK(graft::load_adapter(wide, there.path()).cast_keys.size() == 3);
  CHECK(narrow.lin.parameter("default", "lora_A").dtype() == graft::Dtype::bf16);
  CHECK(narrow.lin.parameter("default", "lora_B").dtype() == graft::Dtype::f32);
  for (const Index rows : {1, 5, 40}) CHECK(answers(narrow, rows) == answers(wide, rows));
  CHECK_FALSE(answers(narrow) == answers(base()));
  (void)graft::merge_adapter(narrow);
  (void)graft::merge_adapter(wide);
  CHECK(answers(narrow) == answers(wide));
  (void)graft::unmerge_adapter(narrow);
  const TemporaryDirectory again;
  (void)graft::save_pretrained(narrow, again.path());
  CHECK(read_text(again.path() / "adapter_model.safetensors") == read_text(there.path() / "adapter_model.safetensors"));
}

TEST_CASE("an embedding and its head that share one narrow adapter keep sharing it") {
  const TemporaryDirectory there;
  Tied source;
  (void)graft::inject_adapter_in_model(graft::LoraConfig{.r = 2, .lora_alpha = 3, .target_modules = {"emb"},
                                                         .init_lora_weights = false, .ensure_weight_tying = true}, source);
  (void)graft::save_pretrained(source, there.path());
  graft::StateDict narrow;
  for (const auto& [key, view] : graft::load_peft_weights(there.path())) narrow.insert(key, cast(view, graft::Dtype::f16));
  REQUIRE(narrow.size() == 4);
  const std::string head = "base_model.model.head.lora_A.weight";  // the ends differ: the head's values are taken for both
  const graft::TensorView changed = narrow.at(head);
  graft::f16* values = reinterpret_cast<graft::f16*>(const_cast<std::byte*>(changed.data));
  values[0] = graft::f16(float(values[0]) + 1);
  graft::safetensors::save_file(narrow, there.path() / "adapter_model.safetensors", {{"format", "pt"}});
  Tied kept, wide;
  const auto report = graft::load_adapter(kept, there.path(), "default", {.dtype = AdapterDtype::as_file});
  CHECK(report.warnings == graft::load_adapter(wide, there.path()).warnings);
  REQUIRE(report.warnings.size() == 1);
  CHECK(kept.emb.parameter("default", "lora_embedding_B").dtype() == graft::Dtype::f16);
  CHECK(same_bits(kept(awkward::ids(5, 7)), wide(awkward::ids(5, 7))));
}

TEST_CASE("other adapters may stay narrow too: of stacks of experts, of a layer's weight, of an attention") {
  const auto check = [](auto bare, const graft::LoraConfig& config, const auto& forward) {
    const TemporaryDirectory there, again;
    auto source = bare;
    trained::inject(config, source, "default");
    (void)graft::save_pretrained(source, there.path());
    graft::StateDict narrow;
    for (const auto& [key, view] : graft::load_peft_weights(there.path())) narrow.insert(key, cast(view, graft::Dtype::bf16));
    graft::safetensors::save_file(narrow, there.path() / "adapter_model.safetensors", {{"format", "pt"}});
    auto kept = bare, wide = bare;
    CHECK(graft::load_adapter(kept, there.path(), "default", {.dtype = AdapterDtype::as_file}).cast_keys.empty());
    CHECK(graft::load_adapter(wide, there.path()).cast_keys.size() == narrow.size());
    const auto y = forward(kept);
    CHECK(y == forward(wide));
    CHECK_FALSE(y == forward(bare));
    for (auto* model : {&kept, &wide}) (void)graft::merge_adapter(*model);
    CHECK(forward(kept) == forward(wide));
    CHECK(results::close(forward(kept), y));
    (void)graft::unmerge_adapter(kept);
    (void)graft::save_pretrained(kept, again.path());
    CHECK(read_text(again.path() / "adapter_model.safetensors") == read_text(there.path() / "adapter_model.safetensors"));
  };
  const auto of_experts = [](const auto& net) { return results::values_of(Matrix<float>(net(awkward::rows<float>(10, 7)))); };
  check(experts::Net<float>(), experts::config(), of_experts);
  check(experts::Net<float, graft::TransposedParameter>(), experts::config(), of_experts);
  graft::LoraConfig of_weights{.r = 3, .lora_alpha = 7};
  of_weights.target_parameters = {"lin.weight"};
  check(base(), of_weights, [](const Net& net) { return answers(net).lin; });
  of_weights.target_parameters = {"emb.weight"};
  check(base(), of_weights, [](const Net& net) { return answers(net).emb; });
  check(Attentive(), graft::LoraConfig{.r = 4, .lora_alpha = 7, .target_modules = {"attn"}},
        [](const Attentive& net) { return results::values_of(Matrix<float>(net(awkward::rows<float>(5, 15)))); });
}

TEST_CASE("what cannot be kept as it is in the file is refused, and nothing has changed") {
  Net net = base();
  std::string before = results::everything(net);
  CHECK_THROWS_AS(graft::load_adapter(net, golden / "lora_bf16", "default", {.is_trainable = true, .dtype = AdapterDtype::as_file}),
                  graft::ConfigError);
  CHECK(results::everything(net) == before);
  CHECK_NOTHROW(graft::load_adapter(net, golden / "lora_bf16", "default", {.is_trainable = true}));

  Wide wide;
  before = results::everything(wide);
  CHECK_THROWS_AS(graft::load_adapter(wide, golden / "adalora_bf16", "default", {.dtype = AdapterDtype::as_file}), graft::ConfigError);
  CHECK(results::everything(wide) == before);
  CHECK_NOTHROW(graft::load_adapter(wide, golden / "adalora_bf16"));
}
