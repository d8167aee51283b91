#include <graft/adapters/token_rows.hpp>

#include <doctest/doctest.h>

#include <graft/graft.hpp>

#include "support/awkward_layers.hpp"
#include "support/results.hpp"

using graft::Index;
using graft::LoraConfig;
using graft::Matrix;
using graft::TokenRows;

namespace {

struct Net {
  graft::Adaptable<graft::Embedding<>> embed_tokens{7, 3};
  graft::Adaptable<graft::Linear<>> p{3, 3}, lm_head{3, 7};
  auto operator()(const auto& ids) const { return lm_head(p(embed_tokens(ids))); }
  GRAFT_MODULE(embed_tokens, p, lm_head)
};

Net made(bool tied) {
  Net net;
  awkward::fill<float>(net.embed_tokens->weight.untyped(), 1);
  awkward::fill<float>(net.p->weight.untyped(), 2);
  awkward::fill<float>(net.lm_head->weight.untyped(), 3);
  awkward::fill<float>(net.lm_head->bias.untyped(), 4);
  if (tied) net.lm_head->weight = net.embed_tokens->weight.share();
  return net;
}
const std::vector<int> ids{5, 1, 2, 5, 0};

void inject(Net& net, const std::string& name, graft::TokenIndices tokens, float seed, bool activate = true) {
  const LoraConfig config{.r = 2, .target_modules = {"p"}, .trainable_token_indices = std::move(tokens)};
  (void)graft::inject_adapter_in_model(config, net, name, {.activate = activate});
  graft::StateDict values = graft::get_peft_model_state_dict(net, name).clone();
  float next = seed;
  for (const auto& [key, view] : values)
    for (Index i = 0; i < view.size(); ++i)
      reinterpret_cast<float*>(const_cast<std::byte*>(view.data))[i] = 0.25f * (next = next * -0.75f + 1);
  (void)graft::set_peft_model_state_dict(net, values, name);
}
const float* rows_of(const Net& net, const std::string& name) {
  return reinterpret_cast<const float*>(
      graft::state_dict(net).at("embed_tokens.token_adapter.trainable_tokens_delta." + name).data);
}
/// The result by hand: the same net, with the rows written into weights of its own.
Matrix<float> by_hand(const Net& net, const std::string& name, const std::vector<Index>& tokens, bool tied) {
  Net plain = made(false);
  plain.p->weight = net.p->weight;
  plain.embed_tokens->weight = net.embed_tokens->weight;
  plain.lm_head->weight = net.lm_head->weight;
  const graft::StateDict all = graft::state_dict(net);
  const auto factor = [&](const char* key, Index rows, Index cols) {
    return Matrix<float>(Eigen::Map<const Matrix<float>>(
        reinterpret_cast<const float*>(all.at("p." + std::string(key) + "." + name + ".weight").data), rows, cols));
  };
  plain.p->weight.view() += 4.0f * factor("lora_B", 3, 2) * factor("lora_A", 2, 3);  // lora_alpha / r = 8 / 2
  const float* rows = rows_of(net, name);
  for (std::size_t i = 0; i < tokens.size(); ++i)
    for (Index c = 0; c < 3; ++c) {
      plain.embed_tokens->weight.view()(tokens[i], c) = rows[Index(i) * 3 + c];
      if (tied) plain.lm_head->weight.view()(tokens[i], c) = rows[Index(i) * 3 + c];
    }
  return plain(ids);
}

TEST_CASE("rows are found by id, of a repeated one the last") {
  const TokenRows rows({5, 1, 5}, graft::Dtype::f32, 3);
  CHECK(rows.find(5) == 2);
  CHECK(rows.find(1) == 1);
  CHECK(rows.find(0) == -1);
  CHECK(rows.overlaps(TokenRows({0, 1}, graft::Dtype::f32, 3)));
  CHECK_FALSE(rows.overlaps(TokenRows({0, 2, 6}, graft::Dtype::f32, 3)));
}

TEST_CASE("rows replace the embedding's and a tied head's, whose bias stays") {
  for (const bool tied : {false, true}) {
    Net net = made(tied);
    const Matrix<float> before = net(ids);
    inject(net, "a", {5, 0}, 3);
    CHECK_FALSE(results::same_values(net(ids), before));
    CHECK(results::same_values(net(ids), by_hand(net, "a", {5, 0}, tied)));
    const auto guard = graft::disable_adapter(net);
    CHECK(results::same_bits(net(ids), before));
  }
}

TEST_CASE("rows of a batch have their own adapters' tokens") {
  Net net = made(true);
  const Matrix<float> base = net(ids);
  inject(net, "a", {5, 0}, 3);
  inject(net, "b", {1, 5}, -2);
  graft::set_adapter(net, "a");
  const Matrix<float> a = net(ids);
  graft::set_adapter(net, "b");
  const Matrix<float> b = net(ids);
  REQUIRE_FALSE(results::same_values(a, b));
  graft::Batch batch;
  batch.add(2, graft::select(net, {{"a"}})).add(1, graft::base_only()).add(2, graft::select(net, {{"b"}}));
  const Matrix<float> y = net(batch.input(ids)).value();
  CHECK(results::same_bits(Matrix<float>(y.topRows(2)), Matrix<float>(a.topRows(2))));
  CHECK(results::same_bits(Matrix<float>(y.row(2)), Matrix<float>(base.row(2))));
  CHECK(results::same_bits(Matrix<float>(y.bottomRows(2)), Matrix<float>(b.bottomRows(2))));
}

TEST_CASE("a token can be replaced once") {
  Net net = made(false);
  inject(net, "a", {5, 0}, 3);
  inject(net, "b", {1, 5}, -2, false);
  inject(net, "c", {1, 2}, 4, false);
  CHECK_THROWS_AS(graft::set_adapter(net, {"a", "b"}), graft::AdapterError);
  CHECK(graft::active_adapters(net) == std::vector<std::string>{"a"});
  graft::Batch batch;
  batch.add(5, graft::select(net, {{"a"}, {"b"}}));
  CHECK_THROWS_AS((void)net(batch.input(ids)), graft::AdapterError);
  graft::set_adapter(net, {"a", "c"});
  const Matrix<float> both = net(ids);
  // disjoint: the embedding's rows of a and of c
  const Matrix<float> embedded = net.embed_tokens(ids);
  CHECK(embedded(0, 1) == rows_of(net, "a")[1]);
  CHECK(embedded(1, 1) == rows_of(net, "c")[1]);
  CHECK(results::same_values(both, net(ids)));
}

TEST_CASE("merging writes the rows, and unmerging brings the bits back") {
  for (const bool tied : {false, true}) {
    Net net = made(tied);
    const std::string base = results::bytes_of(graft::get_base_model_state_dict(net));
    inject(net, "a", {5, 0}, 3);
    inject(net, "c", {1, 2}, 4, false);
    graft::set_adapter(net, {"a", "c"});
    const Matrix<float> y = net(ids);
    (void)graft::merge_adapter(net, "a", {.unmerge = graft::Unmerge::backup});
    CHECK(net.embed_tokens->weight.view()(5, 2) == rows_of(net, "a")[2]);
    CHECK(results::same_values(net(ids), y));
    (void)graft::merge_adapter(net, "c", {.unmerge = graft::Unmerge::backup});
    CHECK(results::same_values(net(ids), y));
    {
      const auto guard = graft::disable_adapter(net);
      CHECK(results::bytes_of(graft::get_base_model_state_dict(net)) == base);
    }
    CHECK(results::same_values(net(ids), y));
    (void)graft::unmerge_adapter(net);
    CHECK(results::bytes_of(graft::get_base_model_state_dict(net)) == base);
    CHECK(results::same_bits(net(ids), y));

    (void)graft::merge_and_unload(net);
    CHECK(results::same_values(net(ids), y));
    if (tied) CHECK(net.lm_head->weight.data() == net.embed_tokens->weight.data());
  }
}

TEST_CASE("rows and updates of different adapters at one site") {
  Net net = made(false);
  inject(net, "a", {5, 0}, 3);
  (void)graft::inject_adapter_in_model(LoraConfig{.r = 2, .target_modules = {"embed_tokens"}, .init_lora_weights = false}, net, "lora",
                                       {.activate = false});
  graft::set_adapter(net, {"a", "lora"});
  const Matrix<float> y = net(ids);
  // what would be lost in the rows that are replaced cannot be merged alone
  CHECK_THROWS_AS((void)graft::merge_adapter(net, "lora"), graft::MergeError);
  (void)graft::merge_adapter(net, "a");
  CHECK(results::same_values(net(ids), y));
  (void)graft::unmerge_adapter(net);
  (void)graft::merge_adapter(net, {"a", "lora"});
  CHECK(results::same_values(net(ids), y));
  (void)graft::unmerge_adapter(net);
  CHECK(results::same_values(net(ids), y));
}

TEST_CASE("they are exchanged with the rest of their adapter, for other tokens too") {
  Net net = made(true), other = made(true);
  inject(net, "a", {5, 0}, 3);
  inject(other, "a", {1, 5, 2}, -2);
  const Matrix<float> before = net(ids), after = other(ids);
  REQUIRE_FALSE(results::same_values(before, after));
  graft::Batch batch;
  batch.add(5, graft::select(net, {{"a"}}));
  const LoraConfig config{.r = 2, .target_modules = {"p"}, .trainable_token_indices = {1, 5, 2}};
  (void)graft::hotswap_adapter(net, graft::get_peft_model_state_dict(other, "a"), config, "a");
  CHECK(results::same_bits(net(ids), after));
  CHECK(results::same_bits(net(batch.input(ids)), before));  // selected before: one generation throughout
  (void)graft::merge_and_unload(net);
  CHECK(results::same_values(net(ids), after));
}

TEST_CASE("they are counted, deleted, and not combined") {
  Net net = made(true);
  const Index before = graft::get_nb_trainable_parameters(net).total;
  inject(net, "a", {5, 0}, 3);
  CHECK(graft::get_nb_trainable_parameters(net).trainable == 6 + 12);
  CHECK(graft::get_nb_trainable_parameters(net).total == before + 6 + 12);
  CHECK_THROWS_AS((void)graft::add_weighted_adapter(net, {"a"}, {1}, "sum"), graft::AdapterError);
  graft::delete_adapter(net, "a");
  CHECK(graft::get_nb_trainable_parameters(net).total == before);
}

}  // namespace
