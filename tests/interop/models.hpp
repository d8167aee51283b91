#pragma once

#include <optional>
#include <string>
#include <vector>

#include <graft/graft.hpp>
#include <nlohmann/json.hpp>

/// The models of the interop cases. Their twins in Python, of the same names, are in twins.py.
namespace interop {

using Sizes = nlohmann::json;
using graft::Index;

inline Index index(const Sizes& sizes, const char* name) { return sizes.at(name).get<Index>(); }

/// T: the activations' scalar; W: the scalar of the weights of all layers but normalisations.
template <class T, class W = T>
struct Mlp {
  graft::Adaptable<graft::Linear<W>> fc1;
  graft::LayerNorm<T> norm;
  graft::Adaptable<graft::Linear<W>> fc2, head;

  explicit Mlp(const Sizes& s)
      : fc1(index(s, "in"), index(s, "hidden"), s.at("bias").get<bool>()),
        norm(index(s, "hidden")),
        fc2(index(s, "hidden"), index(s, "middle"), s.at("bias").get<bool>()),
        head(index(s, "middle"), index(s, "out"), s.at("bias").get<bool>()) {}
  auto operator()(const auto& x) const {
    return head(graft::tanh(fc2(norm(graft::tanh(fc1(x))))));
  }
  GRAFT_MODULE(fc1, norm, fc2, head)
};

template <class T, class W = T>
struct Attention {
  graft::Adaptable<graft::Linear<W>> q_proj, k_proj, v_proj, o_proj;

  Attention(Index hidden, Index inner, bool bias)
      : q_proj(hidden, inner, bias), k_proj(hidden, inner, bias), v_proj(hidden, inner, bias), o_proj(inner, hidden, bias) {}
  auto operator()(const auto& x) const {
    return o_proj(graft::tanh(graft::add(graft::mul(q_proj(x), k_proj(x)), v_proj(x))));
  }
  GRAFT_MODULE(q_proj, k_proj, v_proj, o_proj)
};

template <class T, class W = T>
struct FeedForward {
  graft::Adaptable<graft::Linear<W>> gate_proj, up_proj, down_proj;

  FeedForward(Index hidden, Index wide, bool bias)
      : gate_proj(hidden, wide, bias), up_proj(hidden, wide, bias), down_proj(wide, hidden, bias) {}
  auto operator()(const auto& x) const {
    return down_proj(graft::mul(graft::silu(gate_proj(x)), graft::tanh(up_proj(x))));
  }
  GRAFT_MODULE(gate_proj, up_proj, down_proj)
};

/// The same layers, those over one input by one matrix; they print as their twins.
namespace packed {
template <class T, class W = T>
struct Attention : graft::PackedLinear<graft::Linear<W>, "q_proj", "k_proj", "v_proj"> {
  using Projection = graft::PackedLinear<graft::Linear<W>, "q_proj", "k_proj", "v_proj">;
  graft::Adaptable<graft::Linear<W>> o_proj;

  Attention(Index hidden, Index inner, bool bias)
      : Projection(graft::Linear<W>(hidden, 3 * inner, bias), {inner, inner, inner}), o_proj(inner, hidden, bias) {}
  auto operator()(const auto& x) const {
    const auto y = Projection::operator()(x);
    const auto q = this->template part<"q_proj">(y), k = this->template part<"k_proj">(y), v = this->template part<"v_proj">(y);
    return o_proj(graft::tanh(graft::add(graft::mul(q, k), v)));
  }
  GRAFT_MODULE_FROM(Projection, o_proj)
};
template <class T, class W = T>
struct FeedForward : graft::PackedLinear<graft::Linear<W>, "gate_proj", "up_proj"> {
  using Projection = graft::PackedLinear<graft::Linear<W>, "gate_proj", "up_proj">;
  graft::Adaptable<graft::Linear<W>> down_proj;

  FeedForward(Index hidden, Index wide, bool bias)
      : Projection(graft::Linear<W>(hidden, 2 * wide, bias), {wide, wide}), down_proj(wide, hidden, bias) {}
  auto operator()(const auto& x) const {
    const auto y = Projection::operator()(x);
    return down_proj(graft::mul(graft::silu(this->template part<"gate_proj">(y)), graft::tanh(this->template part<"up_proj">(y))));
  }
  GRAFT_MODULE_FROM(Projection, down_proj)
};
}  // namespace packed

template <class T, class W = T, template <class, class> class Attention = Attention, template <class, class> class FeedForward = FeedForward>
struct Block {
  Attention<T, W> self_attn;
  FeedForward<T, W> mlp;
  graft::Adaptable<graft::RMSNorm<T>> norm;

  explicit Block(const Sizes& s)
      : self_attn(index(s, "hidden"), index(s, "inner"), s.at("bias").get<bool>()),
        mlp(index(s, "hidden"), index(s, "wide"), s.at("bias").get<bool>()),
        norm(index(s, "hidden")) {}
  auto operator()(const auto& x) const {
    const auto h = graft::add(x, self_attn(norm(x)));
    return graft::add(h, mlp(norm(h)));
  }
  GRAFT_MODULE(self_attn, mlp, norm)
};

template <class T, class W = T, class Layer = Block<T, W>>
struct Body {
  graft::Adaptable<graft::Embedding<W>> embed_tokens;
  std::vector<Layer> layers;

  static graft::EmbeddingOptions options(const Sizes& s) {
    graft::EmbeddingOptions options;
    if (!s.at("padding_idx").is_null()) options.padding_idx = index(s, "padding_idx");
    if (!s.at("max_norm").is_null()) options.max_norm = s.at("max_norm").get<double>();
    options.norm_type = s.at("norm_type").get<double>();
    options.scale_grad_by_freq = s.value("scale_grad_by_freq", false);
    options.sparse = s.value("sparse", false);
    return options;
  }
  explicit Body(const Sizes& s) : embed_tokens(index(s, "vocabulary"), index(s, "hidden"), options(s)) {
    for (Index i = 0; i < index(s, "layers"); ++i) layers.emplace_back(s);
  }
  auto operator()(const auto& ids) const {
    auto h = embed_tokens(ids);
    for (const auto& layer : layers) h = layer(h);
    return h;
  }
  GRAFT_MODULE(embed_tokens, layers)
};

template <class T, class W = T, class Layer = Block<T, W>>
struct Decoder {
  Body<T, W, Layer> model;
  graft::Adaptable<graft::Linear<W>> lm_head;

  explicit Decoder(const Sizes& s) : model(s), lm_head(index(s, "hidden"), index(s, "vocabulary"), false) {
    if (s.value("tied", false)) lm_head->weight = model.embed_tokens->weight.share();
  }
  auto operator()(const auto& ids) const { return lm_head(model(ids)); }
  GRAFT_MODULE(model, lm_head)
};

/// torch's own attention, to itself and to what another layer remembers.
template <class T, class W = T>
struct Attentive {
  graft::Adaptable<graft::Linear<W>> fc, memory;
  graft::Adaptable<graft::MultiheadAttention<W>> self_attn, cross_attn;
  graft::Adaptable<graft::Linear<W>> head;
  bool causal;

  explicit Attentive(const Sizes& s)
      : fc(index(s, "in"), index(s, "hidden")),
        memory(index(s, "in"), index(s, "hidden")),
        self_attn(index(s, "hidden"), index(s, "heads"), s.at("bias").get<bool>()),
        cross_attn(index(s, "hidden"), index(s, "heads"), s.at("bias").get<bool>()),
        head(index(s, "hidden"), index(s, "out")),
        causal(s.at("causal").get<bool>()) {}
  auto operator()(const auto& x) const {
    const auto start = graft::tanh(fc(x)), remembered = graft::tanh(memory(x));
    const auto h = graft::add(start, self_attn(start, graft::AttendOptions{.causal = causal}));
    return head(graft::add(h, cross_attn(h, remembered, remembered)));
  }
  GRAFT_MODULE(fc, memory, self_attn, cross_attn, head)
};

template <int N>
graft::ConvOptions<N> conv_options(const Sizes& s) {
  const auto axes = [&](const char* name) { return s.at(name).template get<std::array<Index, std::size_t(N)>>(); };
  const std::string mode = s.at("padding_mode");
  graft::ConvOptions<N> options{.kernel = axes("kernel")};
  options.stride = axes("stride");
  if (s.at("padding").is_string()) options.padding = graft::same;
  else options.padding = axes("padding");
  options.dilation = axes("dilation");
  options.groups = index(s, "groups");
  options.bias = s.at("bias").get<bool>();
  options.padding_mode = mode == "reflect"     ? graft::PaddingMode::reflect
                         : mode == "replicate" ? graft::PaddingMode::replicate
                         : mode == "circular"  ? graft::PaddingMode::circular
                                               : graft::PaddingMode::zeros;
  return options;
}

template <class T, int N>
struct ConvOf;
template <class T>
struct ConvOf<T, 1> { using type = graft::Conv1d<T>; };
template <class T>
struct ConvOf<T, 2> { using type = graft::Conv2d<T>; };
template <class T>
struct ConvOf<T, 3> { using type = graft::Conv3d<T>; };

template <class T, int N>
struct ConvNet {
  graft::Adaptable<typename ConvOf<T, N>::type> conv1, conv2;

  explicit ConvNet(const Sizes& s) : ConvNet(s.at("conv1"), s.at("conv2")) {}
  ConvNet(const Sizes& one, const Sizes& two)
      : conv1(index(one, "in"), index(one, "out"), conv_options<N>(one)),
        conv2(index(two, "in"), index(two, "out"), conv_options<N>(two)) {}
  auto operator()(const auto& x) const { return conv2(graft::tanh(conv1(x))); }
  GRAFT_MODULE(conv1, conv2)
};

}  // namespace interop
