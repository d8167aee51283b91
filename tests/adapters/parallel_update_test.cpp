#include <graft/adapters/parallel_update.hpp>

#include <array>
#include <new>
#include <vector>

#include "support/cutting_host.hpp"
#include "support/laws.hpp"

using graft::Index;
using graft::Matrix;
using support::CuttingHost;

namespace {

/// Counts what it is asked for; adds x to y; throws where a row begins with 99.
class Probe final : public graft::AdapterState<float> {
 public:
  Index of_rank = 0;
  bool of_base = false;
  mutable std::vector<Index> parts{};
  mutable std::vector<graft::Workspace*> workspaces{};

  [[nodiscard]] graft::PeftType type() const override { return graft::PeftType::lora; }
  [[nodiscard]] std::unique_ptr<graft::AnyAdapterState> clone() const override { return std::make_unique<Probe>(*this); }
  [[nodiscard]] std::vector<graft::AdapterParameter> parameters() override { return {}; }
  void initialise(std::uint64_t, std::string_view) override {}
  [[nodiscard]] bool is_meta() const override { return false; }
  [[nodiscard]] Index rank() const override { return of_rank; }
  [[nodiscard]] bool reads_base() const override { return of_base; }
  void update(const graft::SiteInput<float>& x, graft::Out<float> y, double weight, const graft::BaseWeight<float>&,
              graft::Workspace* workspace) const override {
    parts.push_back(y.rows());
    workspaces.push_back(workspace);
    const graft::Scratch<float> some(workspace, 100);
    if (x.rows(0, 0) == 99) throw std::bad_alloc();
    y += float(weight) * x.rows.leftCols(y.cols());
  }
};

/// y after an update of all rows, which begins with zeros.
Matrix<> updated(const Probe& probe, const Matrix<>& x, graft::Workspace* workspace) {
  const graft::Linear<> layer(x.cols(), 5);
  Matrix<> y = Matrix<>::Zero(x.rows(), 5);
  graft::SiteInput<float> input;
  new (&input.rows) graft::In<float>(graft::in(x));
  graft::detail::update_in_pieces<float>(probe, input, graft::out(y), 2, graft::detail::base_weight_of(layer), workspace);
  return y;
}

struct Net {
  graft::Adaptable<graft::Linear<>> p{131, 140}, q{140, 135};
  Net() { graft::initialise(*this, 5); }
  auto operator()(const auto& x) const { return q(p(x)); }
  GRAFT_MODULE(p, q)
};

}  // namespace

TEST_CASE("rows are cut where the rank makes it worth while, and each piece has memory of its own") {
  Probe probe;
  const Matrix<> x = awkward::rows<float>(150, 131);
  const Matrix<> expected = 2 * x.leftCols(5);
  const auto parts_on = [&](Index threads) {
    CuttingHost host(threads);
    graft::Workspace workspace;
    workspace.set_parallel_for(host);
    probe.parts.clear();
    probe.workspaces.clear();
    CHECK(updated(probe, x, &workspace) == expected);
    const bool is_cut = probe.parts.size() > 1;
    CHECK(host.calls == int(is_cut));
    for (std::size_t i = 0; i < probe.parts.size(); ++i) {
      CHECK((probe.workspaces[i] != &workspace) == is_cut);
      for (std::size_t j = 0; j < i; ++j) CHECK(probe.workspaces[i] != probe.workspaces[j]);
    }
    CHECK(workspace.reserved() == 512 * probe.parts.size());
    CHECK(workspace.peak() == 512 * probe.parts.size());
    CHECK(workspace.in_use() == 0);
    workspace.trim();
    CHECK(workspace.reserved() == 0);
    return probe.parts;
  };
  CHECK(parts_on(4) == std::vector<Index>{150});  // no rank, no work
  probe.of_rank = 200;
  CHECK(parts_on(1) == std::vector<Index>{150});
  CHECK(parts_on(2) == std::vector<Index>{150 - 72, 72});
  CHECK(parts_on(3) == std::vector<Index>{150 - 96, 48, 48});
  probe.of_rank = 64;
  CHECK(parts_on(3) == std::vector<Index>{150});
  probe.of_rank = 200;
  probe.of_base = true;
  CHECK(parts_on(3) == std::vector<Index>{150});
  probe.of_base = false;
  probe.parts.clear();
  CHECK(updated(probe, x, nullptr) == expected);
  CHECK(probe.parts == std::vector<Index>{150});
}

TEST_CASE("an error in a piece is the caller's, once all pieces have ended") {
  Probe probe;
  probe.of_rank = 200;
  Matrix<> x = awkward::rows<float>(150, 131);
  x(0, 0) = 99;
  CuttingHost host(3);
  graft::Workspace workspace;
  workspace.set_parallel_for(host);
  CHECK_THROWS_AS(updated(probe, x, &workspace), std::bad_alloc);
  CHECK(probe.parts.size() == 3);
  CHECK(workspace.in_use() == 0);
}

TEST_CASE("LoRA, AdaLoRA and DoRA have the same bits in pieces, alone and in a mixed batch") {
  Net net;
  trained::inject(graft::LoraConfig{.r = 90, .lora_alpha = 7, .target_modules = {"p", "q"}}, net, "lora", 1);
  trained::inject(graft::AdaLoraConfig{.init_r = 90, .lora_alpha = 5, .target_modules = {"p"}}, net, "adalora", 2);
  trained::inject(graft::LoraConfig{.r = 90, .lora_alpha = 5, .target_modules = {"p"}, .use_dora = true}, net, "dora", 3);
  const Matrix<> x = awkward::rows<float>(200, 131);
  const auto run = [&](CuttingHost* host, const std::vector<graft::AdapterSelection>& selections) {
    graft::Batch batch;
    if (host) batch.set_parallel_for(*host);
    for (const auto& selection : selections) batch.add(200 / Index(selections.size()), selection);
    return Matrix<>(net(batch.input(x)).value());
  };
  const graft::AdapterSelection lora = graft::select(net, {{"lora"}}), adalora = graft::select(net, {{"adalora", 0.5}}),
                                dora = graft::select(net, {{"dora"}}), base = graft::base_only();
  const Matrix<> of_base = run(nullptr, {base});
  for (const auto& selections : {std::vector<graft::AdapterSelection>{lora}, {adalora}, {dora}, {base, lora}, {lora, adalora}}) {
    const Matrix<> alone = run(nullptr, selections);
    CHECK(!results::same_values(alone, of_base));
    CuttingHost only_base(3);
    (void)run(&only_base, {base});
    for (const Index threads : {2, 3, 7}) {
      CuttingHost host(threads);
      CHECK(results::same_bits(run(&host, selections), alone));
      CHECK(host.calls >= only_base.calls);
    }
  }
  CuttingHost with(3), without(3);
  (void)run(&with, {lora});
  (void)run(&without, {base});
  CHECK(with.calls == without.calls + 2);  // the updates of both sites
}
