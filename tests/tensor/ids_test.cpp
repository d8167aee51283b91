#include <doctest/doctest.h>

#include <array>
#include <graft/tensor/ids.hpp>
#include <string>

using graft::Ids;
using graft::Index;

namespace {
std::vector<Index> listed(const Ids& ids) {
  std::vector<Index> all;
  for (Index i = 0; i < ids.size(); ++i) all.push_back(ids[i]);
  return all;
}
const std::vector<Index> wanted{3, 1, 4, 1, 5, 9};
}  // namespace

TEST_CASE("ids of either width are read in place") {
  std::vector<std::int64_t> storage;
  const std::vector<int> narrow{3, 1, 4, 1, 5, 9};
  const std::vector<std::int64_t> wide{3, 1, 4, 1, 5, 9};
  const std::array<int, 6> array{3, 1, 4, 1, 5, 9};
  CHECK(listed(graft::ids_of(narrow, storage)) == wanted);
  CHECK(listed(graft::ids_of(wide, storage)) == wanted);
  CHECK(listed(graft::ids_of(array, storage)) == wanted);
  CHECK(listed(graft::ids_of(std::span<const std::int32_t>(narrow), storage)) == wanted);
  CHECK(listed(graft::ids_of(std::span<const std::int64_t>(wide), storage)) == wanted);
  CHECK(listed(graft::ids_of(Ids(std::span<const std::int64_t>(wide)), storage)) == wanted);
  CHECK(storage.empty());
}

TEST_CASE("integer matrices are flattened row by row, whatever their layout") {
  std::vector<std::int64_t> storage;
  Eigen::Matrix<int, 2, 3, Eigen::RowMajor> rows;
  rows << 3, 1, 4, 1, 5, 9;
  const Eigen::Matrix<std::int64_t, Eigen::Dynamic, Eigen::Dynamic> columns = rows.cast<std::int64_t>();
  CHECK(listed(graft::ids_of(rows, storage)) == wanted);
  CHECK(listed(graft::ids_of(columns, storage)) == wanted);
  CHECK(listed(graft::ids_of(Eigen::VectorXi::LinSpaced(3, 5, 7), storage)) == std::vector<Index>{5, 6, 7});
}

TEST_CASE("integer tensors are read in their order") {
  std::vector<std::int64_t> storage;
  Eigen::Tensor<std::int64_t, 2, Eigen::RowMajor> wide(2, 3);
  wide.setValues({{3, 1, 4}, {1, 5, 9}});
  CHECK(listed(graft::ids_of(wide, storage)) == wanted);
  CHECK(storage.empty());
  Eigen::Tensor<std::int16_t, 1, Eigen::RowMajor> narrow(2);
  narrow.setValues({7, 8});
  CHECK(listed(graft::ids_of(narrow, storage)) == std::vector<Index>{7, 8});
}

TEST_CASE("a part of the ids") {
  const std::vector<int> narrow{3, 1, 4, 1, 5, 9};
  const std::vector<std::int64_t> wide{3, 1, 4, 1, 5, 9};
  CHECK(listed(Ids(std::span<const int>(narrow)).subspan(2, 3)) == std::vector<Index>{4, 1, 5});
  CHECK(listed(Ids(std::span<const std::int64_t>(wide)).subspan(4, 2)) == std::vector<Index>{5, 9});
  CHECK(Ids().subspan(0, 0).size() == 0);
}

TEST_CASE("what counts as ids") {
  static_assert(graft::IdsLike<std::vector<int>> && graft::IdsLike<const std::vector<std::int64_t>&>);
  static_assert(graft::IdsLike<Eigen::MatrixXi> && graft::IdsLike<Ids>);
  static_assert(!graft::IdsLike<Eigen::Tensor<float, 2, Eigen::RowMajor>>);
  static_assert(!graft::IdsLike<Eigen::MatrixXf> && !graft::IdsLike<std::vector<float>> && !graft::IdsLike<std::string>);
}
