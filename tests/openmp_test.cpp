#include <doctest/doctest.h>

#include <omp.h>

#include <graft/graft.hpp>
#include <graft/openmp.hpp>
#include <set>
#include <vector>

#include "support/ramp.hpp"
#include "support/results.hpp"

using graft::Batch;
using graft::Index;
using graft::Matrix;
using graft::OpenMp;

TEST_CASE("OpenMP's threads do every piece once, the asked number of them") {
  const OpenMp three(3), all;
  CHECK(three.threads() == 3);
  CHECK(all.threads() == omp_get_max_threads());
  const graft::ParallelFor parallel_for(three);
  for (const Index count : {1, 2, 3, 7}) {
    std::vector<int> done(std::size_t(count), 0), by(std::size_t(count), -1);
    parallel_for(count, [&](Index i) {
      ++done[std::size_t(i)];
      by[std::size_t(i)] = omp_get_thread_num();
    });
    CHECK(done == std::vector<int>(std::size_t(count), 1));
    CHECK(std::set<int>(by.begin(), by.end()).size() == std::size_t(std::min<Index>(count, 3)));
  }
}

TEST_CASE("a product has the same bits on OpenMP's threads") {
  graft::Linear<> layer(523, 1031);
  graft::initialise(layer, 5);
  const OpenMp threads(3);
  for (const Index rows : {1, 9}) {
    const Matrix<> x = support::ramp(rows, 523, 1);
    Batch serial, parallel;
    parallel.set_parallel_for(threads);
    serial.add(rows);
    parallel.add(rows);
    CHECK(results::same_bits(layer(serial.input(x)), layer(parallel.input(x))));
  }
}
