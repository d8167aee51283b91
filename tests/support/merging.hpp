#pragma once

#include "laws.hpp"

/// What holds of merging for every method at every layer, in every dtype.
namespace merging {

using graft::Index;
using results::everything;
using results::same_bits;
using results::same_values;

template <class M>
std::string base_of(const M& model) {
  return results::bytes_of(graft::get_base_model_state_dict(model));
}
template <class Case, template <class> class Method>
bool trains_a_bias() {
  if constexpr (requires { Method<Case>::config().lora_bias; })
    return Method<Case>::config().lora_bias && graft::detail::facts_of(Case::make()).has_bias;
  else return false;
}

/// "a" and "b" both active, each of its own strength.
template <class Case, template <class> class Method>
awkward::Net<Case> two_active() {
  auto net = laws::adapted_net<Case, Method>();
  graft::set_adapter(net, {"b", "a"});
  graft::set_scale(net, "a", 0.75);
  return net;
}

/// Whatever is merged, in whatever order and portions, forward stays what it was; with a backup the bits come back.
template <class Case, template <class> class Method>
void forward_does_not_depend_on_merging() {
  const auto x = Case::input(5);
  const auto base = awkward::Net<Case>{}(x);
  for (const std::vector<std::vector<std::string>>& portions :
       {std::vector<std::vector<std::string>>{{"b", "a"}}, {{"a", "b"}}, {{"a"}, {"b"}}, {{"b"}, {"a"}}, {{"a"}}}) {
    const bool is_refused = portions[0][0] == "b" && portions.size() == 2 && trains_a_bias<Case, Method>();
    auto net = two_active<Case, Method>();
    const auto y = net(x);
    const std::string before = everything(net), before_base = base_of(net);
    REQUIRE_FALSE(same_values(y, base));
    if (is_refused) {  // "a" replaces the bias to which "b" would add
      CHECK_THROWS_AS((void)graft::merge_adapter(net, "b", {.create_bias = true}), graft::MergeError);
      CHECK(everything(net) == before);
      continue;
    }
    std::size_t count = 0;
    for (const auto& names : portions) {
      count += names.size();
      const auto report =
          graft::merge_adapter(net, names, {.unmerge = graft::Unmerge::backup, .create_bias = true});
      CHECK(report.merged_adapters.size() == count);
      CHECK(report.layers == std::vector<std::string>{"site"});
      CHECK(base_of(net) != before_base);
      CHECK(same_values(net(x), y));
    }
    if (count == 2) CHECK(same_values(awkward::Net<Case>{{net.site.base_layer()}}(x), y));
    {
      const auto off = graft::disable_adapter(net);
      CHECK(same_bits(net(x), base));
    }
    CHECK(same_values(net(x), y));
    CHECK(graft::unmerge_adapter(net).layers == std::vector<std::string>{"site"});
    CHECK(everything(net) == before);
    CHECK(same_bits(net(x), y));
  }
}

/// By the delta, the error is that of one sum, however often: after the first cycle nothing changes any more.
template <class Case, template <class> class Method>
void error_does_not_grow() {
  const auto x = Case::input(5);
  auto net = two_active<Case, Method>();
  const auto y = net(x);
  const auto cycle = [&] {
    (void)graft::merge_adapter(net, {}, {.create_bias = true});
    (void)graft::unmerge_adapter(net);
  };
  cycle();
  const std::string after = base_of(net);
  CHECK(same_values(net(x), y));
  for (int i = 0; i < 9; ++i) cycle();
  CHECK(base_of(net) == after);
  for (int i = 0; i < 90; ++i) cycle();
  CHECK(base_of(net) == after);
}

/// The layers alone compute what they did with their adapters.
template <class Case, template <class> class Method>
void unloaded_is_the_same() {
  const auto x = Case::input(5);
  auto net = two_active<Case, Method>();
  const auto y = net(x);
  const auto report = graft::merge_and_unload(net, {}, {.create_bias = true});
  CHECK(report.merged_adapters == std::vector<std::string>{"b", "a"});
  CHECK(graft::adapter_names(net).empty());
  CHECK(graft::repr(net) == graft::repr(awkward::Net<Case>{}));
  CHECK(same_values(net(x), y));
}

template <class Case, template <class> class Method>
void all() {
  forward_does_not_depend_on_merging<Case, Method>();
  error_does_not_grow<Case, Method>();
  unloaded_is_the_same<Case, Method>();
}

/// A method that does not fit into this layer's weight says so, and nothing has changed.
template <class Case, template <class> class Method>
void is_refused(const char* because) {
  auto net = two_active<Case, Method>();
  const std::string before = everything(net);
  CHECK_THROWS_WITH_AS((void)graft::merge_adapter(net), doctest::Contains(because), graft::MergeError);
  CHECK_THROWS_WITH_AS((void)graft::merge_and_unload(net), doctest::Contains(because), graft::MergeError);
  CHECK(everything(net) == before);
}

}  // namespace merging
