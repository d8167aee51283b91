#include <graft/adapters/recorded_steps.hpp>

#include <graft/adapters/site_forward.hpp>

#include "support/laws.hpp"

using graft::Index;
using graft::Matrix;

TEST_CASE("results are kept before the steps whose gradient reads them, each at its place") {
  using Case = awkward::LinearCase<double>;
  awkward::Net<Case> net;
  graft::LoraConfig dora = laws::DoraMethod<Case>::config();
  dora.bias = graft::Bias::none;
  trained::inject(dora, net, "dora");
  trained::inject(laws::Ia3Method<Case>::config(), net, "after");
  trained::inject(laws::Ia3FeedforwardMethod<Case>::config(), net, "before");
  graft::set_requires_grad(net, {"dora", "after", "before"}, true);
  const graft::SiteTable& table = *graft::SiteAccess<decltype(net.site)>::table(std::as_const(net.site));
  graft::Batch batch;
  batch.add(3, graft::select(net, {{"before"}, {"dora"}, {"after"}}));
  const graft::BatchView view = batch.view();
  const graft::detail::SelectedAdapters selected(&table, view);
  using Steps = graft::detail::RecordedSteps<Case::Layer, graft::Lora, graft::Ia3>;
  const Steps steps(net.site.base_layer(), &table, view, {});
  selected.for_each_selection([&](const graft::Segment&, std::span<const graft::detail::Selected> here) {
    CHECK(steps.count(here) == 2);
    CHECK(steps.slot_of(here, &here[1], false) == 0);
    CHECK(steps.slot_of(here, &here[2], true) == 1);
    CHECK_FALSE(steps.keeps(here[0], false));
    CHECK_FALSE(steps.keeps(here[0], true));
    CHECK(steps.kept(here, here[0], true, 0, 3).data() == nullptr);
    Matrix<double> memory(6, 7), y(3, 7);
    const Steps keeping = steps.keeping({memory.data(), 3, 7});
    const Matrix<double> x = awkward::rows<double>(3, 13);
    graft::detail::SiteForward<Case::Layer, 0, double, Steps>(net.site.base_layer(), selected, view, keeping)
        .run({.rows = graft::in<double>(x)}, graft::out(y));
    CHECK(results::same_values(y, Matrix<double>(net.site(batch.input(x)).value())));
    const Matrix<double> l = net.site.parameter("before", "ia3_l").view<double>(), after = net.site.parameter("after", "ia3_l").view<double>();
    const Matrix<double> product = net.site.base_layer()(Matrix<double>(x * l.row(0).asDiagonal()));
    CHECK(results::same_values(Matrix<double>(keeping.kept(here, here[1], false, 0, 3)), product));
    CHECK(results::same_values(Matrix<double>(Matrix<double>(keeping.kept(here, here[2], true, 0, 3)) * after.col(0).asDiagonal()), y));
    graft::set_requires_grad(net, {"dora"}, false);
    CHECK(steps.count(here) == 1);
    CHECK(steps.slot_of(here, &here[2], true) == 0);
  });
}
