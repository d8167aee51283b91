#include <graft/modules/expert_ids.hpp>

#include <doctest/doctest.h>

#include <array>
#include <vector>

using graft::ExpertIds;
using graft::Index;
using graft::Matrix;

TEST_CASE("one expert for all rows, or one for each") {
  CHECK(ExpertIds().is_none());
  CHECK(ExpertIds(2).one() == 2);
  CHECK(ExpertIds(std::size_t(3)).one() == 3);
  const std::vector<int> of_rows{1, 0, 2};
  CHECK(ExpertIds(of_rows).is_by_row());
  CHECK(ExpertIds(of_rows).part(1, 2).of_rows()[1] == 2);
  CHECK(ExpertIds(std::array{1, 2}).of_rows().size() == 2);
  CHECK(ExpertIds(5).part(1, 2).one() == 5);
  static_assert(!std::is_convertible_v<bool, ExpertIds>);
  static_assert(!std::is_convertible_v<Matrix<float>, ExpertIds>);
}

TEST_CASE("experts must be those of the stack, for every row") {
  const auto check = [](const ExpertIds& ids, Index stack, Index rows) { graft::detail::check_experts(ids, stack, rows); };
  CHECK_NOTHROW(check({}, 0, 5));
  CHECK_NOTHROW(check(2, 3, 5));
  CHECK_NOTHROW(check(std::vector<int>{2, 0}, 3, 2));
  CHECK_THROWS_AS(check(0, 0, 5), graft::ShapeError);
  CHECK_THROWS_AS(check({}, 3, 5), graft::ShapeError);
  CHECK_THROWS_AS(check(3, 3, 5), graft::ShapeError);
  CHECK_THROWS_AS(check(-1, 3, 5), graft::ShapeError);
  CHECK_THROWS_AS(check(std::vector<int>{2, 0}, 3, 3), graft::ShapeError);
  CHECK_THROWS_AS(check(std::vector<int>{2, 3}, 3, 2), graft::ShapeError);
}

TEST_CASE("every row is seen once, with the rows of its expert, and goes back to its place") {
  for (const std::vector<int>& of_rows : {std::vector<int>{2, 0, 2, 1, 1, 0}, {1, 1, 1}, {0, 1, 1, 2}, {3}, {}, {4, 0, 4}}) {
    const Index n = Index(of_rows.size());
    Matrix<float> x(n, 3), y(n, 2);
    for (Index i = 0; i < n; ++i) {
      x.row(i).setConstant(float(i + 1));
      y.row(i).setConstant(float(10 * (i + 1)));
    }
    std::vector<int> calls(5);
    graft::Workspace workspace;
    graft::detail::for_each_expert<float>(of_rows, 5, graft::in(x), graft::out(y), true, &workspace,
                                          [&](Index e, const graft::In<float>& rows, graft::Out<float> to) {
                                            ++calls[std::size_t(e)];
                                            for (Index i = 0; i < rows.rows(); ++i) to.row(i).array() += rows(i, 2) + 100 * float(e);
                                          });
    for (Index i = 0; i < n; ++i) CHECK(y(i, 1) == float(11 * (i + 1)) + 100 * float(of_rows[std::size_t(i)]));
    for (std::size_t e = 0; e < 5; ++e) CHECK(calls[e] == (std::count(of_rows.begin(), of_rows.end(), int(e)) > 0));
  }
}
