#pragma once

#include <string>
#include <type_traits>
#include <vector>

#include <graft/graft.hpp>

#include "models.hpp"

/// Modules with parameters of their own that have room for adapters; their twins are in twins.py.
namespace interop {

template <class T>
struct Experts {
  graft::Adaptable<graft::Parameter<T>> gate_up_proj, down_proj;

  explicit Experts(const Sizes& s)
      : gate_up_proj(graft::Shape{index(s, "experts"), 2 * index(s, "inner"), index(s, "hidden")}),
        down_proj(graft::Shape{index(s, "experts"), index(s, "hidden"), index(s, "inner")}) {}
  auto operator()(const auto& x, const graft::ExpertIds& experts) const {
    const auto both = gate_up_proj(x, experts);
    const Index inner = both.cols() / 2;
    return down_proj(graft::mul(graft::silu(graft::slice(both, 0, inner)), graft::slice(both, inner, inner)), experts);
  }
  GRAFT_MODULE(gate_up_proj, down_proj)
};

template <class T>
struct TransposedExperts {
  graft::Adaptable<graft::TransposedParameter<T>> gate_up_proj, down_proj;

  explicit TransposedExperts(const Sizes& s)
      : gate_up_proj(graft::Shape{index(s, "experts"), index(s, "hidden"), 2 * index(s, "inner")}),
        down_proj(graft::Shape{index(s, "experts"), index(s, "inner"), index(s, "hidden")}) {}
  auto operator()(const auto& x, const graft::ExpertIds& experts) const {
    const auto both = gate_up_proj(x, experts);
    const Index inner = both.cols() / 2;
    return down_proj(graft::mul(graft::silu(graft::slice(both, 0, inner)), graft::slice(both, inner, inner)), experts);
  }
  GRAFT_MODULE(gate_up_proj, down_proj)
};

template <class T>
struct Mixer {
  graft::Adaptable<graft::Parameter<T>> weight;
  graft::Adaptable<graft::TransposedParameter<T>> tail;

  explicit Mixer(const Sizes& s)
      : weight(graft::Shape{index(s, "inner"), index(s, "hidden")}), tail(graft::Shape{index(s, "inner"), index(s, "hidden")}) {}
  auto operator()(const auto& x) const { return tail(graft::tanh(weight(x))); }
  GRAFT_MODULE(weight, tail)
};

template <class T, template <class> class Stack>
struct Router {
  graft::Adaptable<graft::Linear<T>> fc;
  Mixer<T> mixer;
  Stack<T> experts;
  graft::Adaptable<graft::Linear<T>> head;
  int count;

  explicit Router(const Sizes& s)
      : fc(index(s, "in"), index(s, "hidden")),
        mixer(s),
        experts(s),
        head(index(s, "hidden"), index(s, "out")),
        count(s.at("experts").get<int>()) {}
  auto operator()(const auto& x) const {
    std::vector<int> first, second;
    for (int i = 0; i < int(x.rows()); ++i) {
      first.push_back((3 * i + 1) % count);
      second.push_back(i * i % count);
    }
    auto h = graft::tanh(fc(x));
    h = graft::add(h, mixer(h));
    return head(graft::add(graft::add(h, experts(h, first)), graft::scale(experts(h, second), 0.5)));
  }
  GRAFT_MODULE(fc, mixer, experts, head)
};

}  // namespace interop
