#pragma once

#include <cmath>

#include "vector.hpp"

/// exp, erf and tanh of whole registers. float: polynomials, within a few units in the last place; double:
/// the standard library's, lane by lane. NaN stays NaN, infinities give the limits.
namespace graft::kernels {
inline namespace GRAFT_ISA {

namespace detail {
template <class F>
GRAFT_INLINE Vector<double> lane_by_lane(Vector<double> x, F&& f) {
  for (std::ptrdiff_t i = 0; i < lanes<double>; ++i) x[i] = f(x[i]);
  return x;
}
GRAFT_INLINE Vector<float> magnitude_of(Vector<float> x) {
  return Vector<float>(Mask<float>(x) & 0x7fffffff);
}
template <int N>
GRAFT_INLINE Vector<float> polynomial(Vector<float> x, const float (&highest_first)[N]) {
  Vector<float> y = broadcast(highest_first[0]);
  GRAFT_UNROLL for (int i = 1; i < N; ++i) y = multiply_add(y, x, broadcast(highest_first[i]));
  return y;
}
}  // namespace detail

/// e^x. Coefficients: Cephes' expf.
GRAFT_INLINE Vector<float> exp(Vector<float> x) {
  // Beyond these the result is infinite or zero; a NaN fails both comparisons and passes through.
  x = x > broadcast(89.0f) ? broadcast(89.0f) : x;
  x = x < broadcast(-104.0f) ? broadcast(-104.0f) : x;
  const Vector<float> shift = broadcast(0x1.8p23f);  // adding it rounds to an integer, kept in the low bits
  const Vector<float> shifted = multiply_add(x, broadcast(1.44269504088896341f), shift);
  const Vector<float> whole = shifted - shift;
  Vector<float> rest = multiply_add(whole, broadcast(-0.693359375f), x);
  rest = multiply_add(whole, broadcast(2.12194440e-4f), rest);
  constexpr float coefficients[] = {1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f,
                                    4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f};
  const Vector<float> fraction =
      multiply_add(detail::polynomial(rest, coefficients), rest * rest, rest) + broadcast(1.0f);
  // Two steps, because 2^128 and the powers below 2^-126 are not normal floats.
  const Mask<float> power = Mask<float>(shifted) - Mask<float>(shift), half = power >> 1;
  return fraction * Vector<float>((half + 127) << 23) * Vector<float>((power - half + 127) << 23);
}
GRAFT_INLINE Vector<double> exp(Vector<double> x) {
  return detail::lane_by_lane(x, [](double v) { return std::exp(v); });
}

/// The hyperbolic tangent. Coefficients near zero: Cephes' tanhf.
GRAFT_INLINE Vector<float> tanh(Vector<float> x) {
  const Vector<float> magnitude = detail::magnitude_of(x), square = x * x;
  constexpr float coefficients[] = {-5.70498872745e-3f, 2.06390887954e-2f, -5.37397155531e-2f,
                                    1.33314422036e-1f, -3.33332819422e-1f};
  const Vector<float> small = multiply_add(detail::polynomial(square, coefficients) * square, x, x);
  const Vector<float> one = broadcast(1.0f), two = broadcast(2.0f);
  const Vector<float> large = one - two / (exp(two * magnitude) + one);
  const Vector<float> with_sign = Vector<float>(Mask<float>(large) | (Mask<float>(x) & INT32_MIN));
  return magnitude < broadcast(0.625f) ? small : with_sign;
}
GRAFT_INLINE Vector<double> tanh(Vector<double> x) {
  return detail::lane_by_lane(x, [](double v) { return std::tanh(v); });
}

/// The error function: a rational approximation (degree 13 over 8) on [-4, 4], where it reaches ±1 in float.
GRAFT_INLINE Vector<float> erf(Vector<float> x) {
  x = x > broadcast(4.0f) ? broadcast(4.0f) : x;
  x = x < broadcast(-4.0f) ? broadcast(-4.0f) : x;
  constexpr float over[] = {-2.72614225801306e-10f, 2.77068142495902e-08f,  -2.10102402082508e-06f,
                            -5.69250639462346e-05f, -7.34990630326855e-04f, -2.95459980854025e-03f,
                            -1.60960333262415e-02f};
  constexpr float under[] = {-1.45660718464996e-05f, -2.13374055278905e-04f, -1.68282697438203e-03f,
                             -7.37332916720468e-03f, -1.42647390514189e-02f};
  const Vector<float> square = x * x;
  return x * detail::polynomial(square, over) / detail::polynomial(square, under);
}
GRAFT_INLINE Vector<double> erf(Vector<double> x) {
  return detail::lane_by_lane(x, [](double v) { return std::erf(v); });
}

}  // namespace GRAFT_ISA
}  // namespace graft::kernels
