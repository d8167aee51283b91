#include <doctest/doctest.h>

#include <deque>
#include <graft/graft.hpp>
#include <graft/io/narrow_kernels.hpp>
#include <graft/thread_pool.hpp>
#include <memory>
#include <vector>

#include "support/allocation_counter.hpp"
#include "support/cutting_host.hpp"
#include "support/ramp.hpp"

// A warm forward on rows, or through a site with a batch, takes nothing from the heap.

using graft::AdapterSelection;
using graft::Adaptable;
using graft::Batch;
using graft::Index;
using graft::KvCache;
using graft::Matrix;
using support::allocations_of;

namespace {

constexpr Index width = 12, inner = 20;

template <class T>
struct Layer {
  int number;
  graft::RMSNorm<T> input_norm{width}, post_norm{width};
  Adaptable<graft::Linear<T>> q{width, width, false}, k{width, 6}, v{width, 6}, o{width, width};
  Adaptable<graft::Linear<T>> gate{width, inner}, up{width, inner}, down{inner, width};

  auto operator()(const auto& x) const {
    const auto h = input_norm(x);
    const auto attended = graft::attention(graft::rotary(q(h), {.head_dim = 2}), graft::rotary(k(h), {.head_dim = 2}), v(h),
                                           {.heads = 6, .kv_heads = 3, .layer = number});
    const auto y = graft::add(x, o(attended));
    const auto g = post_norm(y);
    return graft::add(y, down(graft::mul(graft::silu(gate(g)), up(g))));
  }
  GRAFT_MODULE(input_norm, q, k, v, o, post_norm, gate, up, down)
};

template <class T>
struct Llama {
  Adaptable<graft::Embedding<T>> embedding{11, width};
  std::deque<Layer<T>> layers;
  graft::RMSNorm<T> norm{width};

  Llama() {
    for (int i = 0; i < 2; ++i) layers.push_back({i});
    graft::initialise(*this, 5);
  }
  auto operator()(const auto& ids) const {
    auto x = embedding(ids);
    for (const Layer<T>& layer : layers) x = layer(x);
    return graft::linear(norm(graft::last(x)), embedding->weight);  // a tied head
  }
  GRAFT_MODULE(embedding, layers, norm)
};

struct ConvNet {
  Adaptable<graft::Conv2d<>> conv{3, 4, graft::Conv2dOptions{.kernel = 3, .padding = 1}};
  Adaptable<graft::Linear<>> head{4 * 2 * 3, 5};
  ConvNet() { graft::initialise(*this, 5); }
  auto operator()(const auto& x) const {
    return head(graft::flatten(graft::max_pool2d(graft::relu(conv(x)), {.kernel = 2})));
  }
  GRAFT_MODULE(conv, head)
};

/// Lets all adapters keep their values in bf16.
template <class M>
void make_narrow(M& model) {
  const graft::ModelSites sites = graft::sites_of(model);
  for (const auto& site : sites.sites) {
    if (!site->table()) continue;
    for (graft::SiteEntry& entry : site->table()->entries)
      if (entry.state())
        for (const graft::AdapterParameter& parameter : entry.state()->parameters()) {
          if (!parameter.is_saved) continue;
          const graft::ParameterData wide = *parameter.data;
          parameter.data->reset(wide.shape(), graft::Dtype::bf16);
          parameter.data->allocate();
          graft::detail::convert(wide.dtype(), wide.data(), graft::Dtype::bf16, parameter.data->data(), wide.shape().size());
        }
  }
}
struct Experts {
  Adaptable<graft::Parameter<>> up{graft::Shape{4, inner, width}};
  Adaptable<graft::TransposedParameter<>> down{graft::Shape{4, inner, width}};
  auto operator()(const auto& x, const graft::ExpertIds& ids) const { return down(graft::silu(up(x, ids)), ids); }
  GRAFT_MODULE(up, down)
};
struct Mixture {
  Experts experts;
  std::vector<int> chosen{0, 3, 1, 1, 2, 0, 3, 3, 0};
  Mixture() {
    support::fill_ramp(experts.up->view());
    support::fill_ramp(experts.down->view());
  }
  auto operator()(const auto& x) const { return experts(x, chosen); }
  GRAFT_MODULE(experts)
};

template <class T>
struct Attentive {
  Adaptable<graft::MultiheadAttention<T>> attn{width, 3}, cross{width, 4};
  Attentive() { graft::initialise(*this, 5); }
  auto operator()(const auto& x) const { return cross(attn(x, {.causal = true, .layer = 0}), x, x); }
  GRAFT_MODULE(attn, cross)
};

template <class M>
void inject_all_methods(M& model) {
  graft::inject_adapter_in_model(graft::LoraConfig{.r = 3, .bias = graft::Bias::lora_only, .target_modules = {"q", "v", "embedding"},
                                                   .init_lora_weights = false, .modules_to_save = {"gate"}},
                                 model, "lora");
  graft::inject_adapter_in_model(graft::AdaLoraConfig{.init_r = 3, .target_r = 2, .target_modules = {"q", "o"},
                                                      .init_lora_weights = false},
                                 model, "adalora");
  graft::inject_adapter_in_model(graft::LoraConfig{.r = 2, .target_modules = {"q", "down", "embedding"}, .use_dora = true,
                                                   .init_lora_weights = false},
                                 model, "dora");
  graft::inject_adapter_in_model(graft::Ia3Config{.target_modules = {"k", "down"}, .feedforward_modules = {"down"},
                                                  .init_ia3_weights = false},
                                 model, "ia3");
}

/// Runs `pass` three times, and then answers what a fourth takes from the heap.
template <class Pass>
std::size_t when_warm(const Pass& pass) {
  for (int i = 0; i < 3; ++i) pass();
  return allocations_of(pass);
}

}  // namespace

TEST_CASE("the counter counts") {
  struct alignas(64) Line {
    char bytes[64];
  };
  static void* volatile block;  // else the compiler may leave an allocation out
  CHECK(allocations_of([] {}) == 0);
  CHECK(allocations_of([] { block = new int(1); }) == 1);
  delete static_cast<int*>(block);
  CHECK(allocations_of([] { block = new Line[3]; }) == 1);
  delete[] static_cast<Line*>(block);
  CHECK(allocations_of([] { std::vector<int> numbers(7); block = &numbers; }) == 1);
  if (!support::counts_malloc) return;
  CHECK(allocations_of([] { block = std::malloc(7); }) == 1);
  std::free(block);
  CHECK(allocations_of([] { Matrix<> m(3, 5); block = m.data(); }) == 1);
}

template <class T>
static void check_llama(bool with_narrow_adapters) {
  using S = graft::compute_scalar<T>;
  Llama<T> model;
  inject_all_methods(model);
  if (with_narrow_adapters) make_narrow(model);
  const std::vector<AdapterSelection> selections{
      {}, graft::base_only(), graft::select(model, {{"lora", 0.5}}), graft::select(model, {{"adalora"}, {"ia3", 2}}),
      graft::select(model, {{"lora"}, {"ia3"}}), graft::select(model, {{"lora"}, {"dora"}}), graft::select(model, {{"dora", 0.5}}),
      graft::select(model, {{"lora", 0.5}}), graft::select(model, {{"lora"}, {"dora"}})};  // two stand apart
  const std::vector<int> ids{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0, 1, 2, 3, 4, 5, 6, 7};
  std::deque<KvCache<S>> caches;
  for (std::size_t i = 0; i < selections.size(); ++i) caches.emplace_back(2, 6, 9);
  Batch batch;
  Matrix<S> logits(9, 11);
  const auto pass = [&](Index rows) {
    batch.clear();
    for (std::size_t i = 0; i < selections.size(); ++i) batch.add(i == 0 ? rows - 1 : rows, selections[i], &caches[i]);
    const auto x = batch.input(std::span<const int>(ids.data(), std::size_t(batch.rows())));
    logits = model(x).value();
  };
  const auto generate = [&] {
    for (KvCache<S>& cache : caches) cache.truncate(0);
    pass(2);
    for (int i = 0; i < 3; ++i) pass(2);
  };
  CHECK(when_warm(generate) == 0);
  CHECK(logits.allFinite());
}

TEST_CASE_TEMPLATE("a pass of a Llama on rows", T, float, double, graft::bf16) { check_llama<T>(false); }
TEST_CASE("a pass of a Llama on rows, with adapters of bf16") { check_llama<float>(true); }

static void check_conv_net(bool with_narrow_adapters) {
  ConvNet net;
  graft::inject_adapter_in_model(graft::LoraConfig{.r = 3, .target_modules = {"conv", "head"}, .init_lora_weights = false}, net, "a");
  graft::inject_adapter_in_model(graft::Ia3Config{.target_modules = {"conv", "head"}, .feedforward_modules = {"conv"}}, net, "b");
  graft::inject_adapter_in_model(graft::LoraConfig{.r = 2, .target_modules = {"conv", "head"}, .use_dora = true}, net, "c");
  if (with_narrow_adapters) make_narrow(net);
  const AdapterSelection a = graft::select(net, {{"a"}}), b = graft::select(net, {{"b"}, {"a", 2}}),
                         c = graft::select(net, {{"c"}});
  Eigen::Tensor<float, 4, Eigen::RowMajor> images(4, 3, 4, 6);
  support::fill_ramp(images, 1);
  Batch batch;
  Matrix<> y(4, 5);
  const auto pass = [&] {
    batch.clear();
    batch.add(1, a).add(1, graft::base_only()).add(1, b).add(1, c);
    y = net(batch.input(images)).value();
  };
  CHECK(when_warm(pass) == 0);
}

TEST_CASE("a pass of a convolutional net on rows") {
  check_conv_net(false);
  check_conv_net(true);
}

TEST_CASE("a site through the engine's door") {
  Llama<float> model;
  inject_all_methods(model);
  const AdapterSelection both = graft::select(model, {{"lora"}, {"adalora", 0.5}}), ia3 = graft::select(model, {{"ia3"}}),
                         lora = graft::select(model, {{"lora"}});
  const Layer<float>& layer = model.layers.front();
  const Matrix<> x = support::ramp(7, width, 1), wide = support::ramp(7, inner, 2);
  const Eigen::MatrixXf reference = wide;
  const std::vector<int> ids{1, 2, 3, 4, 5, 6, 7};
  Matrix<> q(7, width), k(7, 6), gate(7, inner), down(7, width), embedded(7, width);
  Batch batch;
  const auto pass = [&] {
    batch.clear();
    batch.add(2, both).add(1, graft::base_only()).add(3, ia3).add(1, lora);
    layer.q(x, batch, q);
    layer.k(Eigen::Map<const Matrix<>>(x.data(), 7, width), batch, k);
    layer.gate(x, batch, gate);
    layer.down(wide.middleRows(0, 7), batch, down);
    model.embedding(ids, batch, embedded);
  };
  const auto update = [&] {
    layer.q.update(batch, x, q);
    layer.down.update(batch, wide, down);
    model.embedding.update(batch, ids, embedded);
  };
  CHECK(when_warm(pass) == 0);
  CHECK(when_warm(update) == 0);
}

namespace {

struct Wide {
  Adaptable<graft::Linear<>> in{41, 6001}, out{6001, 43};
  Adaptable<graft::Conv2d<>> conv{3, 4, graft::Conv2dOptions{.kernel = 5}};
  Wide() { graft::initialise(*this, 5); }
  GRAFT_MODULE(in, out, conv)
};

}  // namespace

TEST_CASE("a pass in pieces on a host's threads") {
  Wide wide;
  (void)graft::inject_adapter_in_model(graft::LoraConfig{.r = 16, .target_modules = {"in"}, .init_lora_weights = false}, wide);
  graft::ThreadPool pool(3, 0);
  support::CuttingHost host(3);
  Eigen::Tensor<float, 4, Eigen::RowMajor> images(26, 3, 24, 24);
  support::fill_ramp(images, 1);
  const Matrix<> x = support::ramp(26, 41, 1);
  Batch batch;
  const auto pass = [&] {
    batch.clear();
    batch.add(26);
    const auto y = wide.out(wide.in(batch.input(x)));
    const auto z = wide.conv(batch.input(images));
  };
  batch.set_parallel_for(pool);
  CHECK(when_warm(pass) == 0);
  batch.set_parallel_for(host);
  CHECK(when_warm(pass) == 0);
  CHECK(host.calls == 4 * 4);
  CHECK(host.pieces == 4 * (3 + 2 + 3 + 2));  // of the update and the convolution only two pay for a thread
}

TEST_CASE("passes of many sizes take nothing once each was seen") {
  Llama<float> model;
  inject_all_methods(model);
  const AdapterSelection lora = graft::select(model, {{"lora"}});
  const std::vector<int> ids(40, 3);
  Batch batch;
  const auto passes = [&] {
    for (Index rows = 1; rows < 40; ++rows) {
      batch.clear();
      batch.add(rows, lora).add(1);
      const auto y = model(batch.input(std::span<const int>(ids.data(), std::size_t(rows) + 1)));
    }
  };
  passes();
  const std::size_t reserved = batch.workspace().reserved();
  CHECK(allocations_of(passes) == 0);
  CHECK(batch.workspace().reserved() == reserved);
}

namespace {

struct Projections : graft::PackedLinear<graft::Linear<>, "q", "k"> {
  using Base = graft::PackedLinear<graft::Linear<>, "q", "k">;
  Projections() : Base(graft::Linear<>(width, 18), {width, 6}) { graft::initialise(*this, 5); }
  GRAFT_MODULE_FROM(Base)
};

}  // namespace

TEST_CASE("a packed layer") {
  Projections qk;
  (void)graft::inject_adapter_in_model(graft::LoraConfig{.r = 3, .target_modules = {"q", "k"}, .init_lora_weights = false}, qk, "lora");
  (void)graft::inject_adapter_in_model(graft::Ia3Config{.target_modules = {"k"}, .feedforward_modules = {"k"}, .init_ia3_weights = false},
                                       qk, "ia3");
  const AdapterSelection lora = graft::select(qk, {{"lora"}}), ia3 = graft::select(qk, {{"ia3"}});
  const Matrix<> x = support::ramp(7, width, 1);
  Matrix<> y(7, 18);
  Batch batch;
  const auto pass = [&] {
    batch.clear();
    batch.add(2, lora).add(1, graft::base_only()).add(4, ia3);
    const auto both = qk(batch.input(x));
    const auto q = qk.part<"q">(both);
    qk(x, batch, y);
    qk.update(batch, x, y);
  };
  CHECK(when_warm(pass) == 0);
}

namespace {

struct TokenModel {
  Adaptable<graft::Embedding<>> embed_tokens{11, width};
  Adaptable<graft::Linear<>> p{width, width}, lm_head{width, 11};

  TokenModel() {
    graft::initialise(*this, 5);
    lm_head->weight = embed_tokens->weight.share();
  }
  auto operator()(const auto& ids) const { return lm_head(p(embed_tokens(ids))); }
  GRAFT_MODULE(embed_tokens, p, lm_head)
};

}  // namespace

TEST_CASE("trained tokens of an embedding and a head on its memory") {
  TokenModel model;
  for (const char* name : {"one", "two"})
    (void)graft::inject_adapter_in_model(
        graft::LoraConfig{.r = 2, .target_modules = {"p"}, .trainable_token_indices = {name[0] == 'o' ? 3 : 5, 7}}, model, name);
  const AdapterSelection one = graft::select(model, {{"one"}}), two = graft::select(model, {{"two"}});
  const std::vector<int> ids{3, 7, 5, 0, 3};
  Batch batch;
  const auto pass = [&] {
    batch.clear();
    batch.add(2, one).add(1, graft::base_only()).add(2, two);
    const auto y = model(batch.input(ids));
  };
  CHECK(when_warm(pass) == 0);
}

TEST_CASE("a pass of a mixture of experts on rows") {
  Mixture model;
  graft::LoraConfig config{.r = 3, .init_lora_weights = false};
  config.target_parameters = {"up", "down"};
  graft::inject_adapter_in_model(config, model, "a");
  graft::inject_adapter_in_model(config, model, "b");
  const std::vector<AdapterSelection> selections{graft::select(model, {{"a"}}), graft::base_only(), {}};
  const Matrix<> x = support::ramp(9, width);
  Batch batch;
  Matrix<> y(9, width);
  const auto pass = [&] {
    batch.clear();
    for (const AdapterSelection& selection : selections) batch.add(3, selection);
    y = model(batch.input(x)).value();
  };
  CHECK(when_warm(pass) == 0);
}

TEST_CASE_TEMPLATE("attentions with a packed projection on rows", T, float, graft::bf16) {
  using S = graft::compute_scalar<T>;
  Attentive<T> model;
  const graft::LoraConfig config{.r = 3, .target_modules = {"attn", "cross"}, .init_lora_weights = false};
  for (const char* name : {"a", "b"}) (void)graft::inject_adapter_in_model(config, model, name);
  KvCache<S> cache(1, width, 3);
  Batch batch;
  const Matrix<S> x = support::ramp<S>(6, width, 1);
  Matrix<S> y(6, width);
  const AdapterSelection both = graft::select(model, {{"a", 0.5}, {"b", 1}});
  CHECK(when_warm([&] {
          cache.truncate(0);
          batch.clear();
          batch.add(2, both).add(1, graft::base_only()).add(3, {}, &cache);
          y = model(batch.input(x)).value();
        }) == 0);
  CHECK(y.allFinite());
}
