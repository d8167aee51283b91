#include <graft/adapters/token_rows_vjp.hpp>

#include "support/laws.hpp"
#include "support/peft_gradients.hpp"
#include "support/site_gradients.hpp"

using graft::Index;
using peft_gradients::check;
using site_gradients::PlainEmbeddingCase;
using site_gradients::Probe;

namespace {
/// torch's options of an embedding that its gradient sees.
struct OptionsCase : PlainEmbeddingCase<double> {
  static Layer make() { return Layer(13, 7, {.padding_idx = 3, .max_norm = 1.5, .scale_grad_by_freq = true}); }
};
struct HeadCase : awkward::LinearCase<double> {
  static Layer make() { return Layer(13, 7, false); }
};
const std::vector<int> recorded_ids{3, 8, 0, 8, 12};
template <class Case>
Probe<Case> with_tokens(std::vector<Index> ids) {
  Probe<Case> probe;
  trained::inject(graft::LoraConfig{.target_modules = {"other"}, .trainable_token_indices = {{"site", ids}}}, probe.net, "a");
  return probe;
}
}  // namespace

TEST_CASE("trained tokens have the gradients of their forward, and the rows in whose place they stand none") {
  Probe<awkward::LinearCase<double>> head = with_tokens<awkward::LinearCase<double>>({5, 0, 3});
  head.check_all({"a"});
  for (graft::Parameter<double>* own : {&head.net.inner.site->weight, &head.net.inner.site->bias}) own->set_requires_grad(true);
  head.backward();
  for (graft::Parameter<double>* own : {&head.net.inner.site->weight, &head.net.inner.site->bias})
    head.check({"own", own->data(), own->size(), head.gradients.of(*own).data()});
  Probe<PlainEmbeddingCase<double>> table = with_tokens<PlainEmbeddingCase<double>>({3, 8, 12});
  table.check_all({"a"});
}

TEST_CASE("trained tokens have the gradients that torch finds of PEFT's") {
  const auto config = [](std::vector<Index> ids) {
    return graft::LoraConfig{.target_modules = {"other"}, .trainable_token_indices = {{"site", std::move(ids)}}};
  };
  check<OptionsCase>("embedding_tokens", config({8, 3, 0}), recorded_ids);
  check<HeadCase>("head_tokens", config({5, 0, 3}));
}
