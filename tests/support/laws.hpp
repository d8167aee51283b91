#pragma once

#include <doctest/doctest.h>

#include <graft/graft.hpp>
#include <string>

#include "awkward_layers.hpp"
#include "results.hpp"
#include "trained.hpp"

/// What holds for every method at every layer, in every dtype.
namespace laws {

using awkward::Net;
using graft::Index;
using results::everything;
using results::same_bits;
using results::same_values;

/// LoRA with a scaling of 7/3, or 7/4 at two groups.
template <class Case>
struct LoraMethod {
  static graft::LoraConfig config() {
    return {.r = Case::r,
            .lora_alpha = 7,
            .bias = graft::Bias::lora_only,
            .target_modules = {"site"},
            .lora_bias = graft::detail::traits_of<typename Case::Layer>::kind != graft::LayerKind::embedding};
  }
};
/// DoRA, with the trained biases that it takes out of what stands before it.
template <class Case>
struct DoraMethod {
  static graft::LoraConfig config() {
    return {.r = Case::r, .lora_alpha = 7, .bias = graft::Bias::lora_only, .target_modules = {"site"}, .use_dora = true};
  }
};
template <class Case>
struct AdaLoraMethod {
  static graft::AdaLoraConfig config() {
    return {.init_r = Case::r, .target_r = 1, .lora_alpha = 7, .target_modules = {"site"}};
  }
};
template <class Case>
struct Ia3Method {
  static graft::Ia3Config config() { return {.target_modules = {"site"}}; }
};
template <class Case>
struct Ia3FeedforwardMethod {
  static graft::Ia3Config config() { return {.target_modules = {"site"}, .feedforward_modules = {"site"}}; }
};

/// A model with trained adapters "a" and "b", of which "b" is active.
template <class Case, template <class> class Method>
Net<Case> adapted_net() {
  Net<Case> net;
  trained::inject(Method<Case>::config(), net, "a", 20);
  auto second = Method<Case>::config();
  if constexpr (requires { second.bias; }) second.bias = graft::Bias::none;
  trained::inject(second, net, "b", 21);
  return net;
}

template <class Case, template <class> class Method>
void off_is_the_base() {
  const auto x = Case::input(5);
  const auto base = Net<Case>{}(x);
  Net<Case> net = adapted_net<Case, Method>();
  const auto with = net(x);
  REQUIRE_FALSE(same_values(with, base));
  {
    const auto off = graft::disable_adapter(net);
    CHECK(same_bits(net(x), base));
  }
  CHECK(same_bits(net(x), with));
  graft::set_adapter(net, {});
  CHECK(same_bits(net(x), base));
  graft::set_adapter(net, "a");
  REQUIRE_FALSE(same_values(net(x), base));
  REQUIRE_FALSE(same_values(net(x), with));
  graft::delete_adapter(net, "a");
  const auto left = net(x);  // of b, which that made active
  REQUIRE_FALSE(same_values(left, base));
  graft::set_adapter(net, "b");
  CHECK(same_bits(net(x), left));
  graft::delete_adapter(net, "b");
  CHECK(same_bits(net(x), base));
}

/// Loading brings the same values, into memory of its own, into memory that was never made, and borrowed.
template <class Case, template <class> class Method>
void loaded_is_the_same() {
  const auto x = Case::input(5);
  const Net<Case> net = adapted_net<Case, Method>();
  const graft::StateDict saved = graft::get_peft_model_state_dict(net, "b").clone();
  const auto with = net(x);
  for (const bool injected_meta : {false, true})
    for (const bool loaded_meta : {false, true}) {
      Net<Case> fresh;
      auto config = Method<Case>::config();
      if constexpr (requires { config.bias; }) config.bias = graft::Bias::none;
      (void)graft::inject_adapter_in_model(config, fresh, "c",
                                           {.low_cpu_mem_usage = injected_meta, .seed = 9});
      if (injected_meta)
        CHECK_THROWS_AS((void)fresh(x), graft::MetaError);
      else
        REQUIRE_FALSE(same_bits(fresh(x), with));
      const auto report =
          graft::set_peft_model_state_dict(fresh, saved, "c", {.low_cpu_mem_usage = loaded_meta});
      CHECK(report.loaded == saved.keys());
      CHECK(same_bits(fresh(x), with));
      CHECK(results::bytes_of(graft::get_peft_model_state_dict(fresh, "c")) == results::bytes_of(saved));
    }
}

/// "a", the base, both with weights, and what is active, in one batch; then each alone.
template <class Case, template <class> class Method>
void rows_are_routed() {
  const Net<Case> bare, net = adapted_net<Case, Method>();
  const std::vector<graft::AdapterSelection> wanted{graft::select(net, {{"a", 1}}),
                                                    graft::base_only(),
                                                    graft::select(net, {{"b", 0.5}, {"a", -2}}),
                                                    {},
                                                    graft::select(net, {{"a", 1}})};
  const auto x = Case::input(Index(2 * wanted.size()));
  graft::Batch mixed, plain;
  for (const auto& selection : wanted) {
    mixed.add(2, selection);
    plain.add(2);
  }
  const auto together = results::values_of(net(mixed.input(x)));
  const auto base = results::values_of(bare(plain.input(x)));
  const std::size_t part = base.size() / wanted.size();
  std::vector<typename Case::Scalar> alone;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    graft::Batch batch;
    batch.add(Index(2 * wanted.size()), wanted[i]);
    const auto y = results::values_of(net(batch.input(x)));
    alone.insert(alone.end(), y.begin() + std::ptrdiff_t(i * part),
                 y.begin() + std::ptrdiff_t((i + 1) * part));
  }
  const auto slice = [&](const auto& all, std::size_t i) {
    return std::vector(all.begin() + std::ptrdiff_t(i * part), all.begin() + std::ptrdiff_t((i + 1) * part));
  };
  CHECK(results::close(together, alone));
  CHECK(slice(together, 1) == slice(base, 1));
  for (const std::size_t i : {0u, 2u, 3u, 4u})
    CHECK_FALSE(results::close(slice(together, i), slice(base, i)));
}

/// Rows, site(x, batch), site(x, batch, y) and site.update(batch, x, y) are one forward.
template <class Case, template <class> class Method>
void doors_agree() {
  const Net<Case> bare, net = adapted_net<Case, Method>();
  const auto x = Case::input(5);
  graft::Batch batch;
  batch.add(2, graft::select(net, {{"a", 1}})).add(1, graft::base_only()).add(2);
  const auto y = net(batch.input(x));
  CHECK(same_bits(net.site(x, batch), y));
  graft::Matrix<typename Case::Scalar> into = graft::Matrix<typename Case::Scalar>::Constant(5, y.cols(), 77);
  net.site(x, batch, into);
  CHECK(same_bits(into, y));
  // an engine's own base product, made by the same layer
  graft::Batch plain;
  plain.add(2).add(1).add(2);
  graft::Matrix<typename Case::Scalar> product = bare(plain.input(x)).value();
  REQUIRE_FALSE(same_values(product, y));
  net.site.update(batch, x, product);
  CHECK(same_values(product, y));
  Eigen::Matrix<typename Case::Scalar, Eigen::Dynamic, Eigen::Dynamic> column_major(5, y.cols());
  net.site(x, batch, column_major);
  CHECK(same_bits(graft::Matrix<typename Case::Scalar>(column_major), y));
}

/// No verb on a copy reaches the original, or the other way round.
template <class Case, template <class> class Method>
void copies_are_apart() {
  const auto x = Case::input(3);
  Net<Case> net = adapted_net<Case, Method>();
  const std::string before = everything(net);
  const auto y = net(x);
  Net<Case> copy = net;
  CHECK(everything(copy) == before);
  CHECK(same_bits(copy(x), y));
  graft::set_adapter(copy, "a");
  graft::set_scale(copy, "b", 3);
  trained::fill(copy, "b", 30);
  graft::set_requires_grad(copy, "b", false);
  graft::delete_adapter(copy, "a");
  auto third = Method<Case>::config();
  if constexpr (requires { third.bias; }) third.bias = graft::Bias::none;
  trained::inject(third, copy, "c", 31);
  CHECK(everything(net) == before);
  CHECK(same_bits(net(x), y));
  Net<Case> assigned;
  assigned = net;
  const auto guard = graft::disable_adapter(net);
  CHECK(same_bits(assigned(x), y));
  CHECK_FALSE(same_bits(net(x), y));
}

/// The strength of an adapter scales what it does, and 1 restores it.
template <class Case, template <class> class Method>
void scale_is_a_factor() {
  const auto x = Case::input(3);
  Net<Case> net = adapted_net<Case, Method>();
  const auto y = net(x);
  graft::set_scale(net, "b", 0.5);
  const auto half = net(x);
  CHECK_FALSE(same_values(half, y));
  graft::set_scale(net, "b", 0.5);
  CHECK(same_bits(net(x), half));
  graft::Batch batch;
  batch.add(3, graft::select(net, {{"b", 2}}));
  CHECK(same_values(net(batch.input(x)), y));
  graft::set_scale(net, "b", 1);
  CHECK(same_bits(net(x), y));
}

/// No rows in, no rows out.
template <class Case, template <class> class Method>
void nothing_comes_of_nothing() {
  const Net<Case> net = adapted_net<Case, Method>();
  const auto x = Case::input(0);
  graft::Batch none, empty_sequence;
  empty_sequence.add(0, graft::select(net, {{"a", 1}})).add(0);
  CHECK(results::values_of(net(x)).empty());
  CHECK(results::values_of(net(none.input(x))).empty());
  CHECK(results::values_of(net(empty_sequence.input(x))).empty());
}

template <class Case, template <class> class Method>
void all() {
  off_is_the_base<Case, Method>();
  loaded_is_the_same<Case, Method>();
  rows_are_routed<Case, Method>();
  doors_agree<Case, Method>();
  copies_are_apart<Case, Method>();
  scale_is_a_factor<Case, Method>();
  nothing_comes_of_nothing<Case, Method>();
}

}  // namespace laws
