#include <doctest/doctest.h>

#include <graft/core/python_float.hpp>

TEST_CASE("floats are written as Python's repr writes them") {
  // python3: [repr(x) for x in (0.0, -0.0, 1.0, -2.5, 0.1, 1e-4, 1e-5, 1.5e-7, 123456.0, 1e15, 1e16, 1.25e22, 0.85, 5e-324, 1/3)]
  using graft::detail::python_float;
  CHECK(python_float(0.0) == "0.0");
  CHECK(python_float(-0.0) == "-0.0");
  CHECK(python_float(1) == "1.0");
  CHECK(python_float(-2.5) == "-2.5");
  CHECK(python_float(0.1) == "0.1");
  CHECK(python_float(1e-4) == "0.0001");
  CHECK(python_float(1e-5) == "1e-05");
  CHECK(python_float(1.5e-7) == "1.5e-07");
  CHECK(python_float(123456) == "123456.0");
  CHECK(python_float(1e15) == "1000000000000000.0");
  CHECK(python_float(1e16) == "1e+16");
  CHECK(python_float(1.25e22) == "1.25e+22");
  CHECK(python_float(5e-324) == "5e-324");
  CHECK(python_float(1.0 / 3) == "0.3333333333333333");
}
