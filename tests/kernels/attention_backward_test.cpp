#include "graft/kernels/attention_backward.hpp"

#include <doctest/doctest.h>

#include "reference.hpp"

using namespace reference;
namespace kernels = graft::kernels;
using kernels::AttentionShape;

namespace {

template <class T>
struct Attention {
  explicit Attention(const AttentionShape& shape) : s(shape) {}
  AttentionShape s;
  Matrix<T> q{s.rows, s.heads * s.head_dim, 1}, k{s.keys, s.kv_heads * s.head_dim, 2, 5}, v{s.keys, s.kv_heads * s.head_dim, 3, 2};
  Matrix<T> y{s.rows, s.heads * s.head_dim, 4}, dy{s.rows, s.heads * s.head_dim, 5, 1};
  Matrix<T> dq{s.rows, s.heads * s.head_dim, 6}, dk{s.keys, s.kv_heads * s.head_dim, 7, 4}, dv{s.keys, s.kv_heads * s.head_dim, 8};

  void forward() {
    std::vector<T> scratch(std::size_t(kernels::attention_scratch(s)));
    kernels::attention<T>(s, q.data(), q.ld, k.data(), k.ld, v.data(), v.ld, y.data(), y.ld, scratch.data());
  }
  void backward(unsigned wanted = 7) {
    std::vector<T> scratch(std::size_t(kernels::attention_backward_scratch(s)) + 1, T(99));
    const kernels::AttentionGradients<T> to{wanted & 1 ? dq.data() : nullptr, dq.ld, wanted & 2 ? dk.data() : nullptr, dk.ld,
                                            wanted & 4 ? dv.data() : nullptr, dv.ld};
    kernels::attention_backward<T>(s, q.data(), q.ld, k.data(), k.ld, v.data(), v.ld, dy.data(), dy.ld, to, scratch.data());
    CHECK(scratch.back() == T(99));
  }
  [[nodiscard]] double loss() {
    forward();
    double sum = 0;
    for (Index i = 0; i < y.rows; ++i)
      for (Index c = 0; c < y.cols; ++c) sum += y.at(i, c) * dy.at(i, c);
    return sum;
  }
  /// The gradients of one query of one head, by the formulas and in double, added to those of everything.
  void add_expected(Index i, Index h, Matrix<double>& of_q, Matrix<double>& of_k, Matrix<double>& of_v) const {
    const Index d = s.head_dim, own = h * d, kv = h / (s.heads / s.kv_heads) * d, seen = s.causal ? s.offset + i + 1 : s.keys;
    const double scale = s.scale != 0 ? s.scale : 1 / std::sqrt(double(d));
    std::vector<double> p(static_cast<std::size_t>(seen)), dp(p.size());
    double sum = 0, mean = 0;
    for (Index j = 0; j < seen; ++j) {
      double score = 0;
      for (Index c = 0; c < d; ++c) {
        score += q.at(i, own + c) * k.at(j, kv + c);
        dp[std::size_t(j)] += dy.at(i, own + c) * v.at(j, kv + c);
      }
      sum += p[std::size_t(j)] = std::exp(scale * score);
    }
    for (std::size_t j = 0; j < p.size(); ++j) mean += (p[j] /= sum) * dp[j];
    for (Index j = 0; j < seen; ++j)
      for (Index c = 0; c < d; ++c) {
        const double ds = scale * p[std::size_t(j)] * (dp[std::size_t(j)] - mean);
        of_q(i, own + c) += ds * k.at(j, kv + c);
        of_k(j, kv + c) += ds * q.at(i, own + c);
        of_v(j, kv + c) += p[std::size_t(j)] * dy.at(i, own + c);
      }
  }
};

template <class T>
Matrix<double> in_double(const Matrix<T>& x) {
  Matrix<double> copy(x.rows, x.cols, 0);
  for (Index i = 0; i < x.rows; ++i)
    for (Index c = 0; c < x.cols; ++c) copy(i, c) = x.at(i, c);
  return copy;
}
template <class T>
double difference(const Matrix<T>& got, const Matrix<double>& want) {
  double largest = got.gaps_are_intact() ? 0 : INFINITY;
  for (Index i = 0; i < got.rows; ++i)
    for (Index c = 0; c < got.cols; ++c) {
      const double error = std::abs(got.at(i, c) - want.at(i, c));
      largest = error >= largest ? error : largest == largest ? std::max(largest, error) : largest;
      if (error != error) return INFINITY;
    }
  return largest;
}

template <class T>
void check(const AttentionShape& s) {
  CAPTURE(s.rows);
  CAPTURE(s.keys);
  CAPTURE(s.heads);
  CAPTURE(s.head_dim);
  Attention<T> attention(s);
  attention.forward();
  const Attention<T> before = attention;
  Matrix<double> dq = in_double(attention.dq), dk = in_double(attention.dk), dv = in_double(attention.dv);
  for (Index h = 0; h < s.heads; ++h)
    for (Index i = 0; i < s.rows; ++i) attention.add_expected(i, h, dq, dk, dv);
  attention.backward();
  // All values are below 1, a row's weights sum up to 1: scores are off by d roundings, which exp makes relative errors of the
  // weights; dq adds up what is below 2 d in sum over the keys, dk and dv a group's rows.
  const double rounding = double(std::numeric_limits<T>::epsilon()) * double(s.keys + 2 * s.head_dim + 16) * double(s.head_dim + 1);
  CHECK(difference(attention.dq, dq) <= rounding);
  CHECK(difference(attention.dk, dk) <= rounding * double(s.rows * s.heads / s.kv_heads));
  CHECK(difference(attention.dv, dv) <= rounding * double(s.rows * s.heads / s.kv_heads));
  for (const unsigned wanted : {1u, 2u, 4u}) {
    Attention<T> alone = before;
    alone.backward(wanted);
    CHECK(alone.dq.storage == (wanted & 1 ? attention : before).dq.storage);
    CHECK(alone.dk.storage == (wanted & 2 ? attention : before).dk.storage);
    CHECK(alone.dv.storage == (wanted & 4 ? attention : before).dv.storage);
  }
}

// Central differences: a step of 2^-17 costs 1e-11 by the third derivative and 3e-10 by the roundings of the loss.
void check_differences(const AttentionShape& s) {
  Attention<double> attention(s);
  attention.forward();
  const Attention<double> before = attention;
  attention.backward();
  const auto check_one = [&](const Matrix<double>& got, const Matrix<double>& stood, Matrix<double> Attention<double>::*of) {
    Attention<double> moved = before;
    double largest = 0, error = 0;
    for (Index i = 0; i < got.rows; ++i)
      for (Index c = 0; c < got.cols; ++c) {
        const double step = 0x1p-17, kept = (moved.*of)(i, c);
        (moved.*of)(i, c) = kept + step;
        const double above = moved.loss();
        (moved.*of)(i, c) = kept - step;
        const double below = moved.loss();
        (moved.*of)(i, c) = kept;
        const double slope = (above - below) / (2 * step);
        largest = std::max(largest, std::abs(slope));
        error = std::max(error, std::abs(got(i, c) - stood(i, c) - slope));
      }
    CHECK(largest > 0.01);
    CHECK(error < 1e-8);
  };
  check_one(attention.dq, before.dq, &Attention<double>::q);
  check_one(attention.dk, before.dk, &Attention<double>::k);
  check_one(attention.dv, before.dv, &Attention<double>::v);
}

// torch's (heads, rows, head_dim) as rows of heads
std::vector<double> rows_of_heads(const std::vector<double>& t, std::size_t heads, std::size_t rows, std::size_t d) {
  std::vector<double> x(t.size());
  for (std::size_t h = 0; h < heads; ++h)
    for (std::size_t i = 0; i < rows; ++i)
      for (std::size_t c = 0; c < d; ++c) x[(i * heads + h) * d + c] = t[(h * rows + i) * d + c];
  return x;
}

}  // namespace

TEST_CASE("attention_backward is central differences of attention, causal or not") {
  check_differences({.rows = 7, .keys = 7, .heads = 3, .kv_heads = 3, .head_dim = 3});
  check_differences({.rows = 3, .keys = 13, .heads = 4, .kv_heads = 2, .head_dim = 7, .offset = 10});
  check_differences({.rows = 7, .keys = 5, .heads = 6, .kv_heads = 2, .head_dim = 3, .causal = false, .scale = 0.3});
  check_differences({.rows = 1, .keys = 3, .heads = 2, .kv_heads = 1, .head_dim = 5, .causal = false});
}

TEST_CASE("attention_backward adds the gradients of q, k and v for every size") {
  for (const Index rows : {1, 2, 7, 16, 33, 65})
    for (const Index d : {1, 7, 16}) {
      check<float>({.rows = rows, .keys = rows, .heads = 3, .kv_heads = 3, .head_dim = d});
      check<double>({.rows = rows, .keys = rows + 13, .heads = 6, .kv_heads = 2, .head_dim = d, .offset = 13});
      check<float>({.rows = rows, .keys = 31, .heads = 4, .kv_heads = 1, .head_dim = d, .causal = false, .scale = 0.3});
    }
  check<float>({.rows = 70, .keys = 1200, .heads = 2, .kv_heads = 1, .head_dim = 9, .offset = 1130});
  check<double>({.rows = 140, .keys = 140, .heads = 1, .kv_heads = 1, .head_dim = 13});
}

TEST_CASE("where one key has all the weight, nothing is left of large values that cancel") {
  for (const Index d : {7, 16, 33}) {
    Attention<float> attention({.rows = 7, .keys = 7, .heads = 2, .kv_heads = 1, .head_dim = d, .causal = false, .scale = 4e3});
    for (Matrix<float>* large : {&attention.v, &attention.dy})
      for (float& value : large->storage) value *= 300;
    Matrix<double> dq(7, 2 * d, 0), dk(7, d, 0), dv(7, d, 0);
    for (Index h = 0; h < 2; ++h)
      for (Index i = 0; i < 7; ++i) attention.add_expected(i, h, dq, dk, dv);
    std::fill(attention.dq.storage.begin(), attention.dq.storage.end(), 0.f);
    std::fill(attention.dk.storage.begin(), attention.dk.storage.end(), 0.f);
    attention.forward();
    attention.backward();
    double largest = 0;
    for (Index i = 0; i < 7; ++i)
      for (Index c = 0; c < 2 * d; ++c) largest = std::max(largest, std::abs(double(attention.dq(i, c)) - dq(i, c)));
    CHECK(largest < 1);  // a product dy v is some 1e5, and its last digit times the scale some 30
  }
}

// q = v(1, 4, 2, 3), k = w(1, 2, 5, 3), u = v(1, 2, 5, 3, a=7, b=3, m=11) as in attention_test.cpp, y there; y.backward() of
// w(2, 12), rows of heads. First with attn_mask=[[j <= 3 + i for j in range(5)] for i in range(2)], then without and scale=0.25
TEST_CASE("the gradients of attention are torch's, of grouped queries behind earlier keys too") {
  const auto q = rows_of_heads(lattice<double>(24), 4, 2, 3), k = rows_of_heads(lattice<double>(30, 29, 5, 13), 2, 5, 3),
             v = rows_of_heads(lattice<double>(30, 7, 3, 11), 2, 5, 3), dy = lattice<double>(24, 29, 5, 13);
  AttentionShape s{.rows = 2, .keys = 5, .heads = 4, .kv_heads = 2, .head_dim = 3, .offset = 3};
  std::vector<double> dq, dk, dv;
  const auto run = [&] {
    dq.assign(24, 0);
    dk.assign(30, 0);
    dv.assign(30, 0);
    std::vector<double> y(24), scratch(std::size_t(std::max(kernels::attention_scratch(s), kernels::attention_backward_scratch(s))));
    kernels::attention(s, q.data(), 12, k.data(), 6, v.data(), 6, y.data(), 12, scratch.data());
    kernels::attention_backward<double>(s, q.data(), 12, k.data(), 6, v.data(), 6, dy.data(), 12,
                                        {dq.data(), 12, dk.data(), 6, dv.data(), 6}, scratch.data());
  };
  run();
  CHECK(close(dq, {-0.076689747706196132, 0.034079296227288065, 0.034079296227288017, 0.0692656488434443,
                   -0.020050770175572184, -0.020050770175572136, -0.053699906296245881, 0.13401394771073738,
                   -0.10966514010413603, 0.096145234101065014, 0.026534904196382658, 0.12991686353621348,
                   0.13804585406142211, 0.017779980832291625, 0.017779980832291625, -0.20679673152838926,
                   -0.085634838674378266, -0.085634838674378239, 0.40894451524684172, -0.060253158144847677,
                   -0.55846161138405626, -0.19171526773674802, 0.032934990618080834, 0.26583964877696492}, 1e-14));
  CHECK(close(dk, {0.054335548421345234, -0.028426792231992556, -0.043800940753479733, -0.59212194411188357,
                   0.60167145841871528, 0.46120893050002509, 0.023084430437472991, -0.015764549991276959,
                   -0.070890358915387017, -0.062566914782592034, 0.18639916546270188, -0.018483815955848276,
                   -0.0070556346503073131, -0.012213014159387671, 0.01068303891198974, 0.14691631957205448,
                   -0.02002615303312268, -0.069620419858941851, 0.0251184676093828, 0.030661504763070113,
                   -0.042960254300190778, 0.47833734456786564, -0.77730559146857325, -0.36219174117123737,
                   -0.095482811817893698, 0.025742851619587073, 0.14696851505706782, 0.029435194754555413,
                   0.0092611206202789041, -0.010912953513997604}, 1e-14));
  CHECK(close(dv, {-0.21337420532607432, -0.2995109021351271, 0.24090905222572845, -0.00022059136138601054,
                   0.44467277148856893, 0.66663935040043687, -0.16980111897846301, -0.44730642517911828,
                   0.24127334101146047, 0.79683157666760085, -1.1332862871146128, -0.68561327588701848,
                   -0.660909938209715, -0.067000875179800329, 0.75502919562492343, -0.23365684256977051,
                   0.48409618633591628, -0.37955648787722335, -0.25096775660122239, -0.2806349083468066,
                   0.25197010918058399, 0.0057517626331676369, 0.33082958858096245, 0.48443418388065029,
                   0.045053019115475212, -0.40554688915914766, 0.010818301957303711, -0.068705905369611853,
                   0.12368774070916587, -0.085903770516845473}, 1e-14));
  s.causal = false;
  s.scale = 0.25;
  run();
  CHECK(close(dq, {0.02959958823034977, 0.001580776909558294, 0.0015807769095583131, 0.11856783685197333,
                   -0.0069885580031012924, -0.0069885580031012959, -0.0071036018024465651, 0.022981931617992869,
                   -0.060357482875404635, 0.0026774947521941306, 0.00065153743074699774, 0.099938369189271473,
                   0.084154792448899063, 0.0083534926858239919, 0.008353492685823985, -0.11015166226579926,
                   -0.025552062038272125, -0.02555206203827215, 0.13597058652838612, -0.036123879352950417,
                   -0.2256113241820038, -0.066148479905084753, 0.02142919867831081, 0.11038602502273612}, 1e-14));
  CHECK(close(dk, {0.056832629937249898, 0.049761712366443063, -0.085903902824029071, -0.2037216676096727,
                   0.22473476166358797, 0.14537811129636163, 0.039737698831426339, 0.042705830025789697,
                   -0.075159362495303694, -0.052169159213881169, 0.20889628127003473, -0.0046709821809716098,
                   0.041974916575185095, 0.075384971739357556, -0.092034088864910268, 0.080690197194861729,
                   -0.079044887627112384, -0.04195298447442504, 0.029085818833960109, 0.059938845931378312,
                   -0.071023759748311377, 0.16684474732884713, -0.25123242354962549, -0.11950456535591336,
                   -0.16763106417782137, -0.22779136006296863, 0.32412111393255438, 0.0083558822998451229,
                   -0.10335373175688466, 0.0207504207149482}, 1e-14));
  CHECK(close(dv, {-0.22433017163477961, -0.306825506502999, 0.26630728200986886, 0.021676956202352146,
                   0.29972831204362693, 0.35701452797390559, -0.19809576537024354, -0.36320133661403065,
                   0.26253156693556079, 0.25518434547240748, -0.25048491997476363, -0.21165030050304134,
                   -0.39009332598157581, -0.18686456822935532, 0.43966952126854852, -0.092782837396540696,
                   0.26648929569266622, -0.18779262098893357, -0.23618852264062631, -0.29615442269455683,
                   0.2694844029786157, 0.027646371516904883, 0.25244607185035628, 0.29529378002197243,
                   -0.20129221437277464, -0.3469541659590582, 0.26200722680740607, 0.28827516420487587,
                   -0.31817875961188591, -0.252865386503903}, 1e-14));
}

TEST_CASE("NaN in the gradient of a query reaches the keys that it sees, and no others") {
  Attention<float> attention({.rows = 6, .keys = 6, .head_dim = 5});
  attention.forward();
  attention.dy(3, 0) = std::numeric_limits<float>::quiet_NaN();
  attention.backward(3);
  for (Index i = 0; i < 6; ++i) CHECK(std::isnan(attention.dq(i, 0)) == (i == 3));
  Attention<float> of_later({.rows = 6, .keys = 6, .head_dim = 5});
  of_later.v(4, 0) = std::numeric_limits<float>::infinity();
  of_later.forward();
  for (float& value : of_later.y.storage) value = 0.5f;
  of_later.backward(1);
  for (Index i = 0; i < 6; ++i) CHECK(std::isfinite(of_later.dq(i, 0)) == (i < 4));
}
