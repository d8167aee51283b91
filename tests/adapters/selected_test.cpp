#include <graft/adapters/selected.hpp>

#include "support/laws.hpp"

using graft::Index;
using graft::Matrix;

namespace {
struct Net {
  graft::Adaptable<graft::Linear<double>> p{3, 2};
  auto operator()(const auto& x) const { return p(x); }
  GRAFT_MODULE(p)
};
Net with_adapters(int count) {
  Net net;
  awkward::fill<double>(net.p->weight.untyped(), 1);
  for (int i = 0; i < count; ++i)
    trained::inject(graft::LoraConfig{.r = 1, .lora_alpha = 3, .target_modules = {"p"}}, net, "a" + std::to_string(i), unsigned(40 + i));
  return net;
}
Matrix<double> routed(const Net& net, const Matrix<double>& x, const graft::AdapterSelection& selection) {
  graft::Batch batch;
  batch.add(x.rows(), selection);
  return net(batch.input(x)).value();
}
/// The adapter's weights exchanged for twice as large ones, as one generation.
void exchange(Net& net, const char* name) {
  const graft::ModelSites sites = graft::sites_of(net);
  const auto record = graft::detail::need_record(sites, name);
  const auto& old = record->generation.own();
  auto next = std::make_shared<graft::AdapterGeneration>();
  next->config = old->config;
  next->number = old->number + 1;
  next->identity = old->identity;
  const graft::SiteTable* table = sites.sites[0]->table();
  auto here = old->at(table->number)->clone();
  auto parameters = here->state->parameters();
  for (Index i = 0; i < parameters[1].data->shape().size(); ++i) reinterpret_cast<double*>(parameters[1].data->data())[i] *= 2;
  next->put(table->number, table, std::move(here));
  record->generation.publish(std::move(next));
}
}  // namespace

TEST_CASE("a selection goes on with the weights that it was made with; a new one, and plain rows, take the new ones") {
  Net net = with_adapters(1);
  const Matrix<double> x = awkward::rows<double>(4, 3);
  const Matrix<double> base = routed(net, x, graft::base_only());
  const auto before = graft::select(net, {{"a0"}});
  const Matrix<double> old = routed(net, x, before);
  REQUIRE_FALSE(results::same_values(old, base));
  graft::Batch filled;
  filled.add(x.rows(), graft::select(net, {{"a0"}}));
  exchange(net, "a0");
  CHECK(results::same_bits(routed(net, x, before), old));
  CHECK(results::same_bits(net(filled.input(x)), old));  // the batch keeps them alive, the selection is gone
  const Matrix<double> doubled = base + 2 * (old - base);
  CHECK(results::same_values(routed(net, x, graft::select(net, {{"a0"}})), doubled));
  CHECK(results::same_values(net(x), doubled));
  graft::set_scale(net, "a0", 0.5);  // a strength is the adapter's, whatever its weights
  CHECK(results::same_values(routed(net, x, before), Matrix<double>(base + 0.5 * (old - base))));
  graft::delete_adapter(net, "a0");
  CHECK_THROWS_AS((void)routed(net, x, before), graft::AdapterError);
}

TEST_CASE("a selection of one model means the adapter of that number on a copy of it") {
  Net net = with_adapters(1);
  const Matrix<double> x = awkward::rows<double>(4, 3);
  const auto selection = graft::select(net, {{"a0"}});
  const Matrix<double> before = routed(net, x, selection);
  Net copy = net;
  exchange(copy, "a0");
  CHECK(results::same_bits(routed(net, x, selection), before));
  CHECK(results::same_bits(routed(copy, x, selection), routed(copy, x, graft::select(copy, {{"a0"}}))));
  CHECK_FALSE(results::same_values(routed(copy, x, selection), before));
}

TEST_CASE("layers copied inside of a model have weights of their own") {
  Net net = with_adapters(1), other = net;
  const Matrix<double> x = awkward::rows<double>(4, 3);
  const Matrix<double> before = net(x);
  exchange(other, "a0");
  net.p = other.p;  // a site from elsewhere, with a record of its own
  CHECK_FALSE(results::same_values(net(x), before));
  graft::set_adapter(net, "a0");
  CHECK(results::same_bits(net(x), other(x)));
}

TEST_CASE("more adapters than fit on the stack, in every order, by batch and by activation") {
  Net net = with_adapters(7);
  const Matrix<double> x = awkward::rows<double>(5, 3);
  std::vector<std::string> names;
  Matrix<double> sum = routed(net, x, graft::base_only());
  const Matrix<double> base = sum;
  std::vector<graft::NamedWeight> wanted;
  for (int i = 6; i >= 0; --i) {
    names.push_back("a" + std::to_string(i));
    wanted.push_back({names.back(), 0.5});
    sum += 0.5 * (routed(net, x, graft::select(net, {{names.back()}})) - base);
  }
  CHECK(results::same_values(routed(net, x, graft::select(net, wanted)), sum));
  for (const std::string& name : names) graft::set_scale(net, name, 0.5);
  graft::set_adapter(net, names);
  CHECK(results::same_values(net(x), sum));
  graft::Batch mixed;
  for (Index row = 0; row < 5; ++row) mixed.add(1, row % 2 ? graft::AdapterSelection() : graft::base_only());
  const Matrix<double> y = net(mixed.input(x)).value();
  for (Index row = 0; row < 5; ++row) CHECK(results::same_values(Matrix<double>(y.row(row)), Matrix<double>((row % 2 ? sum : base).row(row))));
}

TEST_CASE("a selection at a site with merged adapters is refused") {
  Net net = with_adapters(1);
  const Matrix<double> x = awkward::rows<double>(2, 3);
  const graft::ModelSites sites = graft::sites_of(net);
  graft::SiteTable* table = sites.sites[0]->table();
  table->merged = table->active;
  table->settle();
  CHECK_THROWS_AS((void)routed(net, x, graft::base_only()), graft::MergeError);
  CHECK_NOTHROW((void)routed(net, x, {}));
}

TEST_CASE("a forward that fails holds no weights: they can be exchanged after it") {
  for (const int count : {2, 7}) {
    Net net = with_adapters(count);
    const std::string last = "a" + std::to_string(count - 1);
    std::vector<std::string> names;
    for (int i = 0; i + 1 < count; ++i) names.push_back("a" + std::to_string(i));
    const auto stale = graft::select(net, {{last}});
    graft::delete_adapter(net, last);
    graft::set_adapter(net, names);
    const Matrix<double> x = awkward::rows<double>(2, 3);
    graft::Batch mixed;
    mixed.add(1);  // takes hold of what is active before the next row fails
    mixed.add(1, stale);
    CHECK_THROWS_AS((void)net(mixed.input(x)), graft::AdapterError);
    const Matrix<double> before = net(x);
    exchange(net, "a0");  // waits for ever where a hold was left behind
    CHECK_FALSE(results::same_values(net(x), before));
  }
}
