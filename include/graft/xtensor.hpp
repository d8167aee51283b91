#pragma once

/// xtensor containers as activations and token ids: `xt::xtensor`, `xt::xarray`, `xt::xtensor_fixed`, and what
/// `xt::adapt` makes of somebody's memory. Row-major, read in place. Results are an `xt::xarray` where the rank is
/// known only at run time, else an `xt::xtensor`.
///
/// A weight in xtensor memory is borrowed: `parameter.bind(w.data())` of a `Parameter<T, mapped>`. Lazy
/// expressions and views are no containers: evaluate them first.

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <type_traits>
#include <vector>

// 0.26 moved its headers.
#if __has_include(<xtensor/containers/xtensor.hpp>)
#include <xtensor/containers/xarray.hpp>
#include <xtensor/containers/xtensor.hpp>
#else
#include <xtensor/xarray.hpp>
#include <xtensor/xtensor.hpp>
#endif

#include "graft.hpp"

namespace graft {

namespace detail {
template <class X>
concept XtensorExpression = std::derived_from<X, xt::xexpression<X>>;
template <class X>
concept XtensorContainer = XtensorExpression<X> && std::derived_from<X, xt::xcontainer<X>>;
}  // namespace detail

template <detail::XtensorExpression X>
struct tensor_traits<X> {
  static_assert(sizeof(X) == 0,
                "graft: an xtensor view or expression has no memory to read: pass xt::eval(expression)");
};

template <detail::XtensorContainer X>
struct tensor_traits<X> {
  static_assert(X::static_layout == xt::layout_type::row_major,
                "graft: a column-major or strided xtensor cannot be read in place: declare it with "
                "xt::layout_type::row_major");
  using scalar = std::remove_const_t<typename X::value_type>;
  /// -1 for an xarray, which knows its rank only at run time.
  static constexpr int rank = int(xt::static_dimension<typename X::shape_type>::value);

  template <int R, class U>
  static auto make_other(const Shape& shape) {
    if constexpr (rank < 0) {
      const std::vector<std::size_t> sizes(shape.begin(), shape.end());
      return xt::xarray<U, xt::layout_type::row_major>::from_shape(sizes);
    } else {
      detail::check_rank(shape, R);
      std::array<std::size_t, std::size_t(R)> sizes{};
      std::copy(shape.begin(), shape.end(), sizes.begin());
      return xt::xtensor<U, std::size_t(R), xt::layout_type::row_major>::from_shape(sizes);
    }
  }
  static auto make(const Shape& shape) { return make_other<rank, scalar>(shape); }
  using result = decltype(make(Shape{}));

  static Shape shape(const X& x) {
    Shape dimensions;
    for (const auto dimension : x.shape()) dimensions.push_back(Index(dimension));
    return dimensions;
  }
  static const scalar* data(const X& x) { return x.data(); }
  static auto data(X& x) { return x.data(); }
};

}  // namespace graft
