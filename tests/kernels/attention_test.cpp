#include "graft/kernels/attention.hpp"

#include <doctest/doctest.h>

#include "reference.hpp"

using namespace reference;
namespace kernels = graft::kernels;
using kernels::AttentionShape;

namespace {

template <class T>
void check_attention(const AttentionShape& s) {
  CAPTURE(s.rows);
  CAPTURE(s.keys);
  CAPTURE(s.heads);
  CAPTURE(s.head_dim);
  const Index d = s.head_dim;
  const Matrix<T> q(s.rows, s.heads * d, 1), k(s.keys, s.kv_heads * d, 2, 5), v(s.keys, s.kv_heads * d, 3, 2);
  Matrix<T> y(s.rows, s.heads * d, 4);
  std::vector<T> scratch(std::size_t(kernels::attention_scratch(s)) + 1, T(99));
  kernels::attention(s, q.data(), q.ld, k.data(), k.ld, v.data(), v.ld, y.data(), y.ld, scratch.data());
  const double scale = s.scale != 0 ? s.scale : 1 / std::sqrt(double(d));
  const double bound = double(16 + s.keys + d) * double(std::numeric_limits<T>::epsilon());
  bool all_close = true;
  for (Index i = 0; i < s.rows; ++i)
    for (Index h = 0; h < s.heads; ++h) {
      const Index shared = h / (s.heads / s.kv_heads) * d;
      const Index seen = s.causal ? s.offset + i + 1 : s.keys;
      std::vector<double> shares;
      double sum = 0;
      for (Index j = 0; j < seen; ++j) {
        double dot = 0;
        for (Index c = 0; c < d; ++c) dot += q.at(i, h * d + c) * k.at(j, shared + c);
        shares.push_back(std::exp(scale * dot));
        sum += shares.back();
      }
      for (Index c = 0; c < d; ++c) {
        double expected = 0;
        for (Index j = 0; j < seen; ++j) expected += shares[std::size_t(j)] / sum * v.at(j, shared + c);
        all_close = all_close && std::abs(y.at(i, h * d + c) - expected) <= bound;
      }
    }
  CHECK(all_close);
  CHECK(y.gaps_are_intact());
  CHECK(scratch.back() == T(99));
}

// torch's (heads, rows, head_dim) as rows of heads
std::vector<float> rows_of_heads(const std::vector<float>& t, std::size_t heads, std::size_t rows,
                                 std::size_t d) {
  std::vector<float> x(t.size());
  for (std::size_t h = 0; h < heads; ++h)
    for (std::size_t i = 0; i < rows; ++i)
      for (std::size_t c = 0; c < d; ++c) x[(i * heads + h) * d + c] = t[(h * rows + i) * d + c];
  return x;
}

}  // namespace

TEST_CASE("attention is softmax(scale * q k^T) v for every head, causal or not") {
  for (const Index rows : {1, 2, 7, 16, 17, 33})
    for (const Index d : {1, 7, 16}) {
      check_attention<float>({.rows = rows, .keys = rows, .heads = 3, .kv_heads = 3, .head_dim = d});
      check_attention<float>(
          {.rows = rows, .keys = rows + 13, .heads = 6, .kv_heads = 2, .head_dim = d, .offset = 13});
      check_attention<double>({.rows = rows,
                               .keys = 31,
                               .heads = 4,
                               .kv_heads = 1,
                               .head_dim = d,
                               .causal = false,
                               .scale = 0.3});
    }
  for (const Index d : {1, 16, 21, 80}) {  // so many queries that keys are packed, in strips that end where a query's do and do not
    check_attention<float>({.rows = 100, .keys = 100, .heads = 2, .kv_heads = 2, .head_dim = d});
    check_attention<float>({.rows = 33, .keys = 97, .heads = 6, .kv_heads = 2, .head_dim = d, .offset = 64});
    check_attention<double>({.rows = 50, .keys = 31, .heads = 2, .kv_heads = 1, .head_dim = d, .causal = false, .scale = 0.3});
    check_attention<double>({.rows = 97, .keys = 97, .head_dim = d});
  }
  check_attention<float>({.rows = 3, .keys = 1200, .heads = 2, .kv_heads = 1, .head_dim = 9, .offset = 1197});
}

// q = v(1, 4, 2, 3); k = w(1, 2, 5, 3); u = v(1, 2, 5, 3, a=7, b=3, m=11); v and w as in normalise_test.cpp
// F.scaled_dot_product_attention(q, k.repeat_interleave(2, 1), u.repeat_interleave(2, 1),
//                                attn_mask=[[j <= 3 + i for j in range(5)] for i in range(2)]).transpose(1,
//                                2)
// and the same without a mask and with scale=0.25
TEST_CASE("attention gives torch's numbers") {
  const auto q = rows_of_heads(lattice<float>(24), 4, 2, 3),
             k = rows_of_heads(lattice<float>(30, 29, 5, 13), 2, 5, 3),
             v = rows_of_heads(lattice<float>(30, 7, 3, 11), 2, 5, 3);
  AttentionShape s{.rows = 2, .keys = 5, .heads = 4, .kv_heads = 2, .head_dim = 3, .offset = 3};
  std::vector<float> y(24), scratch(std::size_t(kernels::attention_scratch(s)));
  kernels::attention(s, q.data(), 12, k.data(), 6, v.data(), 6, y.data(), 12, scratch.data());
  CHECK(close(y,
              {-0.92332441426787859,
               0.82667558573212174,
               -0.17332441426787842,
               -0.92637492199595639,
               0.8236250780040435,
               -0.17637492199595653,
               0.72364468095317835,
               -0.27635531904682159,
               -1.0299844315463824,
               0.67324075719410048,
               -0.32675924280589963,
               -0.15205781197564364,
               -0.21659600715423505,
               0.74031747874968568,
               -0.25968252125031449,
               -0.27233753077094286,
               0.74407661589814822,
               -0.25592338410185178,
               0.5,
               -0.5,
               0.5697174260995882,
               0.48884276058727621,
               -0.51115723941272384,
               0.59481669874384535},
              5e-7));
  s.causal = false;
  s.scale = 0.25;
  kernels::attention(s, q.data(), 12, k.data(), 6, v.data(), 6, y.data(), 12, scratch.data());
  CHECK(close(y, {-0.52501252567751555,  0.75068919774298004,  -0.24931080225702001, -0.5447870182048461,
                  0.75279054753692631,   -0.24720945246307363, 0.41856853872378819,  -0.5814314612762117,
                  -0.047260951605407442, 0.5814314612762117,   -0.41856853872378813, -0.02492434888568645,
                  -0.33720409246648986,  0.74518562344909556,  -0.25481437655090439, -0.36399230038437075,
                  0.7474802543940734,    -0.25251974560592655, 0.49999999999999983,  -0.49999999999999994,
                  0.30810329390825575,   0.49331086564823257,  -0.50668913435176743, 0.32339741598617605},
              5e-7));
}

TEST_CASE("decoding row by row gives the bits of the whole prompt") {
  for (const Index rows : {40, 70})  // with keys as they stand, and packed
    for (const Index d : {9, 33}) {
      const Matrix<float> q(rows, 4 * d, 1), k(rows, 2 * d, 2), v(rows, 2 * d, 3);
      const AttentionShape prompt{.rows = rows, .keys = rows, .heads = 4, .kv_heads = 2, .head_dim = d};
      std::vector<float> whole(std::size_t(rows * 4 * d)), decoded(whole), scratch(std::size_t(kernels::attention_scratch(prompt)));
      kernels::attention(prompt, q.data(), q.ld, k.data(), k.ld, v.data(), v.ld, whole.data(), 4 * d, scratch.data());
      for (Index i = 0; i < rows; ++i)
        kernels::attention({.rows = 1, .keys = i + 1, .heads = 4, .kv_heads = 2, .head_dim = d, .offset = i}, &q(i, 0), q.ld,
                           k.data(), k.ld, v.data(), v.ld, decoded.data() + i * 4 * d, 4 * d, scratch.data());
      CHECK(whole == decoded);
    }
}

TEST_CASE("NaN in a key reaches the queries that see it") {
  for (const Index rows : {6, 100}) {  // with keys as they stand, and packed
    const Index d = 21;
    const Matrix<float> q(rows, d, 1), v(rows, d, 3);
    Matrix<float> k(rows, d, 2);
    k(4, 0) = std::numeric_limits<float>::quiet_NaN();
    const AttentionShape s{.rows = rows, .keys = rows, .head_dim = d};
    std::vector<float> y(std::size_t(rows * d)), scratch(std::size_t(kernels::attention_scratch(s)));
    kernels::attention(s, q.data(), q.ld, k.data(), k.ld, v.data(), v.ld, y.data(), d, scratch.data());
    for (Index i = 0; i < rows; ++i) CHECK(std::isnan(y[std::size_t(i * d)]) == (i >= 4));
  }
}
