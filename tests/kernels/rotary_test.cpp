#include "graft/kernels/rotary.hpp"

#include <doctest/doctest.h>

#include "reference.hpp"

using namespace reference;
namespace kernels = graft::kernels;

namespace {
/// Rows at the positions from `first` on.
template <class T>
void rotary(Index n, Index heads, Index head_dim, Index first, double theta, const T* x, Index ldx, T* y, Index ldy) {
  std::vector<T> frequencies(std::size_t(head_dim / 2) + 1, T(99)), table(std::size_t(kernels::rotary_table_size(n, head_dim)) + 1, T(99));
  kernels::rotary_frequencies(head_dim, theta, frequencies.data());
  kernels::rotary_table(n, head_dim, first, frequencies.data(), table.data());
  CHECK(frequencies.back() == T(99));
  CHECK(table.back() == T(99));
  kernels::rotary(n, heads, head_dim, table.data(), x, ldx, y, ldy);
}
}  // namespace

// c = LlamaConfig(hidden_size=12, num_attention_heads=2, num_key_value_heads=2, head_dim=6,
// rope_theta=10000.0) q = v(1, 2, 2, 6)   # heads, rows, head_dim; v as in normalise_test.cpp cos, sin =
// LlamaRotaryEmbedding(c)(q, torch.tensor([[1000, 1001]])); apply_rotary_pos_emb(q, q, cos, sin)[0]
TEST_CASE("rotary gives the numbers of transformers' Llama, far from the start") {
  const std::vector<float> by_head = lattice<float>(24);
  const std::vector<double> expected_by_head = {
      1.4553837776184082,   -0.81433296203613281, 0.89351111650466919,  -0.082814157009124756,
      1.3553087711334229,   -1.8066926002502441,  0.52805018424987793,  -1.2271848917007446,
      0.55086773633956909,  1.3119310140609741,   1.2724059820175171,   -1.7346599102020264,
      1.3231334686279297,   -1.5193229913711548,  0.20074766874313354,  0.61181521415710449,
      1.3006373643875122,   -1.6649925708770752,  -0.12791535258293152, 1.4244389533996582,
      -0.14219939708709717, 1.5759561061859131,   -1.4259991645812988,  -1.5944527387619019};
  std::vector<float> x(24), y(24, 99.0f);
  std::vector<double> expected(24);
  for (std::size_t head = 0; head < 2; ++head)
    for (std::size_t row = 0; row < 2; ++row)
      for (std::size_t j = 0; j < 6; ++j) {
        x[row * 12 + head * 6 + j] = by_head[(head * 2 + row) * 6 + j];
        expected[row * 12 + head * 6 + j] = expected_by_head[(head * 2 + row) * 6 + j];
      }
  rotary(2, 2, 6, 1000, 1e4, x.data(), 12, y.data(), 12);
  CHECK(close(y, expected, 2e-7));
  rotary(2, 2, 6, 1000, 1e4, x.data(), 12, x.data(), 12);
  CHECK(x == y);
}

TEST_CASE("rotary rotates pairs by the angle of their position, for every head") {
  for (const Index half : {1, 3, 7, 16, 33}) {
    const Matrix<double> x(4, 3 * 2 * half, 1);
    Matrix<double> y(4, 3 * 2 * half, 2, 1);
    rotary(4, 3, 2 * half, 5, 500.0, x.data(), x.ld, y.data(), y.ld);
    bool all_close = true;
    for (Index i = 0; i < 4; ++i)
      for (Index head = 0; head < 3; ++head)
        for (Index j = 0; j < half; ++j) {
          const double angle = double(5 + i) * std::pow(500.0, -double(j) / double(half));
          const Index first = head * 2 * half + j, second = first + half;
          const double a = x.at(i, first), b = x.at(i, second);
          all_close = all_close &&
                      std::abs(y.at(i, first) - (a * std::cos(angle) - b * std::sin(angle))) < 1e-14 &&
                      std::abs(y.at(i, second) - (b * std::cos(angle) + a * std::sin(angle))) < 1e-14;
        }
    CHECK(all_close);
    CHECK(y.gaps_are_intact());
  }
}

TEST_CASE("position 0 changes nothing, and a row has the same bits alone") {
  const Matrix<float> x(3, 20, 1);
  Matrix<float> y(3, 20, 2);
  std::vector<float> alone(20);
  rotary(3, 2, 10, 0, 1e4, x.data(), x.ld, y.data(), y.ld);
  for (Index j = 0; j < 20; ++j) CHECK(y(0, j) == x(0, j));
  rotary(1, 2, 10, 2, 1e4, &x(2, 0), x.ld, alone.data(), Index(20));
  for (Index j = 0; j < 20; ++j) CHECK(alone[std::size_t(j)] == y(2, j));
}
