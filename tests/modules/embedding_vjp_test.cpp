#include "graft/modules/embedding_vjp.hpp"

#include <doctest/doctest.h>

#include "support/op_gradients.hpp"
#include "support/ramp.hpp"

using namespace graft;
using support::agrees;
using support::close;
using support::Gapped;
using support::ramp;

namespace {
const std::vector<std::int32_t> ids{1, 4, 1, 0, 4, 4};

Embedding<double> made(EmbeddingOptions options = {}) {
  Embedding<double> embedding(5, 3, options);
  support::fill_ramp(embedding.weight, 2);
  return embedding;
}
template <class L, class T = double>
void run(const L& layer, Gradients& gradients, const Matrix<T>& dy = ramp<T>(6, 3, 4)) {
  support::OneBatch batch(Index(ids.size()));
  const Gapped<T> g(dy);
  embedding_vjp<L, T>(layer, std::span<const std::int32_t>(ids), batch.view(), gradients, g.in());
  CHECK(batch.workspace.in_use() == 0);
}
void check(const EmbeddingOptions& options, const std::vector<double>& torch) {
  const Embedding<double> embedding = made(options);
  Gradients gradients;
  run(embedding, gradients);
  CHECK(close(gradients.of(embedding.weight), torch, 1e-11));  // the literals' digits
  run(embedding, gradients);
  CHECK(gradients.of(embedding.weight)(0, 1) == -2.75);  // added
}

/// A user's tables.
template <class Table>
struct Users {
  Table table = ramp<double>(5, 3, 2);
};
struct Scaled : Users<Matrix<double>> {};
struct Computed {
  Matrix<double> half = ramp<double>(5, 3, 2) / 2;
};
/// Something recorded, which is ids too.
struct RecordedIds : std::vector<int> {};
template <class T>
int record_lookup(const Embedding<T>&, const RecordedIds&) {
  return 42;
}
}  // namespace
template <>
inline constexpr bool graft::is_recorded<RecordedIds> = true;

namespace {
template <class L>
struct UsersTraits {
  using scalar = double;
  static constexpr LayerKind kind = LayerKind::embedding;
  static Index num_embeddings(const L&) { return 5; }
  static Index embedding_dim(const L&) { return 3; }
};
}  // namespace
template <class Table>
struct graft::layer_traits<Users<Table>> : UsersTraits<Users<Table>> {
  static auto& weight(auto& layer) { return layer.table; }
};
template <>
struct graft::layer_traits<Scaled> : UsersTraits<Scaled> {
  static auto& weight(auto& layer) { return layer.table; }
  static double embed_scale(const Scaled&) { return 4; }
};
template <>
struct graft::layer_traits<Computed> : UsersTraits<Computed> {
  static auto weight(auto& layer) { return layer.half * 2.0; }
};

// torch's autograd of nn.Embedding(5, 3, …) with weight ramp(5, 3, salt=2), for ids (1, 4, 1, 0, 4, 4) and dy = ramp(6, 3, salt=4)
TEST_CASE("a table's gradient is torch's") {
  check({}, {-0.25, -1.375, 0.375, 1.5, -0.75, -0.125, 0, 0, 0, 0, 0, 0, -1.25, 1.125, 0.625});
  check({.padding_idx = 4}, {-0.25, -1.375, 0.375, 1.5, -0.75, -0.125, 0, 0, 0, 0, 0, 0, 0, 0, 0});
  check({.padding_idx = -1}, {-0.25, -1.375, 0.375, 1.5, -0.75, -0.125, 0, 0, 0, 0, 0, 0, 0, 0, 0});
  check({.scale_grad_by_freq = true},
        {-0.25, -1.375, 0.375, 0.75, -0.375, -0.0625, 0, 0, 0, 0, 0, 0, -0.416666666667, 0.375, 0.208333333333});
  check({.padding_idx = 1, .scale_grad_by_freq = true}, {-0.25, -1.375, 0.375, 0, 0, 0, 0, 0, 0, 0, 0, 0, -0.416666666667, 0.375, 0.208333333333});
  // rows 0 and 1 are longer
  check({.max_norm = 1.5}, {-0.25, -1.375, 0.375, 1.5, -0.75, -0.125, 0, 0, 0, 0, 0, 0, -1.25, 1.125, 0.625});
}

TEST_CASE("it is what differences say") {
  Embedding<double> embedding = made();
  const Matrix<double> dy = ramp<double>(6, 3, 4);
  Gradients gradients;
  run(embedding, gradients);
  const auto loss = [&] { return embedding(ids).cwiseProduct(dy).sum(); };
  CHECK(agrees(gradients.of(embedding.weight), support::differences(5, 3, embedding.weight.data(), loss), support::difference_error));
}

TEST_CASE("a narrow table has a gradient of float") {
  Embedding<bf16> embedding(5, 3);
  Gradients gradients;
  run<Embedding<bf16>, float>(embedding, gradients);
  CHECK(close(gradients.of(embedding.weight), {-0.25, -1.375, 0.375, 1.5, -0.75, -0.125, 0, 0, 0, 0, 0, 0, -1.25, 1.125, 0.625}, 0));
}

TEST_CASE("a user's table is trained where it lies in one piece, in the layout that it has") {
  const Embedding<double> same = made();
  Gradients gradients;
  run(same, gradients);
  const Matrix<double> expected = gradients.of(same.weight);
  const Users<Matrix<double>> rows;
  run(rows, gradients);
  CHECK(gradients.at<double>(rows.table.data(), 5, 3) == expected);
  const Users<Eigen::MatrixXd> columns;
  run(columns, gradients);
  CHECK(gradients.at<double>(columns.table.data(), 3, 5) == expected.transpose());
  const Scaled scaled;
  run(scaled, gradients);
  CHECK(gradients.at<double>(scaled.table.data(), 5, 3) == 4 * expected);
  gradients.clear();
  CHECK_THROWS_AS(run(Computed(), gradients), TrainingError);
  CHECK(gradients.empty());
}

TEST_CASE("recorded ids are looked up by whoever records them") { CHECK(made()(RecordedIds{}) == 42); }
