#include <graft/adapters/parallel_low_rank_vjp.hpp>

#include <doctest/doctest.h>

#include <vector>

#include "support/cutting_host.hpp"
#include "support/ramp.hpp"

using graft::Index;
using graft::Matrix;
using support::CuttingHost;
using support::ramp;

namespace {

struct Found {
  Matrix<> d_a, d_b, d_e, dx;
  bool operator==(const Found&) const = default;
};
/// Gradients of a low-rank update with e, of which some are wanted: bits 1 dA, 2 dB, 4 de, 8 dx.
struct Problem {
  Index n, in, out, r;
  Matrix<> x = ramp(n, in, 1) / 3, g = ramp(n, out, 2) / 7, a = ramp(r, in, 3) / 3, b = ramp(out, r, 4) / 7, e = ramp(1, r, 5) / 3;

  [[nodiscard]] Found find(unsigned wanted, const auto& f) const {
    Found to{ramp(r, in, 6) / 3, ramp(out, r, 7) / 3, ramp(1, r, 8) / 3, ramp(n, in, 9) / 3};
    f(graft::kernels::LowRankGradients<float>{wanted & 1 ? to.d_a.data() : nullptr, wanted & 2 ? to.d_b.data() : nullptr,
                                              wanted & 4 ? to.d_e.data() : nullptr, wanted & 8 ? to.dx.data() : nullptr, in});
    return to;
  }
  [[nodiscard]] Found whole(unsigned wanted) const {
    return find(wanted, [&](const graft::kernels::LowRankGradients<float>& to) {
      std::vector<float> scratch(std::size_t(graft::kernels::low_rank_backward_scratch<float>(n, in, out, r)));
      graft::kernels::low_rank_backward<float>(n, in, out, r, x.data(), in, a.data(), b.data(), e.data(), 0.75f, g.data(), out, nullptr, to,
                                               scratch.data());
    });
  }
  [[nodiscard]] Found in_pieces(unsigned wanted, graft::Workspace* workspace) const {
    return find(wanted, [&](const graft::kernels::LowRankGradients<float>& to) {
      graft::detail::parallel_low_rank_vjp<float>(r, graft::in(x), a.data(), b.data(), e.data(), 0.75f, graft::in(g), to, workspace);
    });
  }
};

}  // namespace

TEST_CASE("the gradients of a low-rank update have the bits of one piece in any number of them") {
  // several blocks of rows; columns that are no whole units; fewer units than threads; small ranks and those that take panels
  for (const Problem& problem : {Problem{1100, 131, 70, 33}, Problem{1040, 300, 517, 3}, Problem{24, 700, 650, 130}, Problem{4000, 13, 7, 31}})
    for (const unsigned wanted : {15u, 1u, 2u, 12u}) {
      CAPTURE(wanted);
      const Found whole = problem.whole(wanted);
      CHECK_FALSE(whole == problem.whole(0));
      for (const Index threads : {1, 2, 7}) {
        CAPTURE(threads);
        CuttingHost host(threads);
        graft::Workspace workspace;
        workspace.set_parallel_for(host);
        CHECK(problem.in_pieces(wanted, &workspace) == whole);
        CHECK(workspace.in_use() == 0);
        CHECK((host.calls > 0) == (threads > 1 && (problem.n > 24 || (wanted & 3))));  // few rows stay together
      }
    }
}
TEST_CASE("what nobody wants costs nothing, and a small update stays in one piece") {
  CuttingHost host(4);
  graft::Workspace workspace;
  workspace.set_parallel_for(host);
  const Problem small{30, 12, 7, 3}, none{0, 12, 7, 3};
  CHECK(small.in_pieces(0, &workspace) == small.whole(0));
  CHECK(none.in_pieces(15, &workspace) == none.whole(15));
  CHECK(workspace.reserved() == 0);
  CHECK(small.in_pieces(15, &workspace) == small.whole(15));
  CHECK(small.in_pieces(15, nullptr) == small.whole(15));
  CHECK(host.calls == 0);
}
