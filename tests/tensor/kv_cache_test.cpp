#include <doctest/doctest.h>

#include <graft/tensor/kv_cache.hpp>

#include "support/ramp.hpp"

using graft::AnyKvCache;
using graft::CacheError;
using graft::KvCache;
using graft::Matrix;

namespace {
graft::In<float> first(const Matrix<>& rows, graft::Index count) { return graft::rows_of(graft::in(rows), 0, count); }
}  // namespace

TEST_CASE("a cache answers all keys and values of a layer so far") {
  KvCache<> cache(2, 3, 5);
  const Matrix<> keys = support::ramp(4, 3, 1), values = support::ramp(4, 3, 2);
  {
    const auto [k, v] = cache.append(0, 0, first(keys, 3), first(values, 3));
    CHECK(k == keys.topRows(3));
    CHECK(v == values.topRows(3));
  }
  const auto [k, v] = cache.append(0, 3, graft::rows_of(graft::in(keys), 3, 1), graft::rows_of(graft::in(values), 3, 1));
  CHECK(k == keys);
  CHECK(v == values);
  CHECK(cache.length() == 4);
  CHECK(cache.capacity() == 5);
}

TEST_CASE("each layer has its own rows; the length is the longest") {
  KvCache<> cache(2, 3, 5);
  const Matrix<> rows = support::ramp(2, 3);
  cache.append(1, 0, graft::in(rows), graft::in(rows));
  CHECK(cache.length() == 2);
  CHECK(cache.append(0, 0, graft::in(rows), graft::in(rows)).first.rows() == 2);
}

TEST_CASE("truncate forgets rows, and never adds any") {
  KvCache<> cache(1, 3, 5);
  const Matrix<> rows = support::ramp(3, 3), other = support::ramp(1, 3, 5);
  cache.append(0, 0, graft::in(rows), graft::in(rows));
  cache.truncate(4);
  CHECK(cache.length() == 3);
  cache.truncate(1);
  CHECK(cache.length() == 1);
  const auto [k, v] = cache.append(0, 1, graft::in(other), graft::in(other));
  CHECK(k.row(0) == rows.row(0));
  CHECK(k.row(1) == other.row(0));
  CHECK(v.rows() == 2);
}

TEST_CASE("a layer that was not made, a wrong position, width or a full cache are CacheErrors that change nothing") {
  KvCache<> cache(1, 3, 4);
  const Matrix<> rows = support::ramp(3, 3), narrow = support::ramp(1, 2);
  const auto add = [&](graft::Index layer, graft::Index position, const Matrix<>& m) {
    cache.append(layer, position, graft::in(m), graft::in(m));
  };
  CHECK_THROWS_WITH_AS(add(-1, 0, rows), doctest::Contains("AttentionOptions::layer"), CacheError);
  CHECK_THROWS_AS(add(1, 0, rows), CacheError);
  CHECK_THROWS_WITH_AS(add(0, 1, rows), doctest::Contains("truncate()"), CacheError);
  add(0, 0, rows);
  CHECK_THROWS_WITH_AS(add(0, 0, rows), doctest::Contains("clear()"), CacheError);
  CHECK_THROWS_WITH_AS(add(0, 3, rows), doctest::Contains("capacity"), CacheError);
  CHECK_THROWS_AS(add(0, 3, narrow), CacheError);
  CHECK(cache.length() == 3);
  add(0, 3, rows.topRows(1));
  CHECK(cache.length() == 4);
}

TEST_CASE("a pointer to any cache knows its scalar") {
  KvCache<double> cache(1, 2, 7);
  KvCache<float> other(1, 2, 3);
  const AnyKvCache any = &cache, none = nullptr;
  CHECK(any);
  CHECK_FALSE(none);
  CHECK(none.length() == 0);
  CHECK(none.capacity() == 0);
  CHECK(any.capacity() == 7);
  CHECK(any.is(&cache));
  CHECK_FALSE(any.is(&other));
  CHECK(&any.as<double>() == &cache);
  CHECK_THROWS_WITH_AS((void)any.as<float>(), doctest::Contains("KvCache<double>"), CacheError);
  const Matrix<double> rows = support::ramp<double>(3, 2);
  cache.append(0, 0, graft::in(rows), graft::in(rows));
  CHECK(any.length() == 3);
}
