#include <graft/injection/report.hpp>

#include <doctest/doctest.h>

TEST_CASE("an injection draws values, activates and neither replaces nor insists, unless told so") {
  const graft::InjectOptions options;
  CHECK_FALSE(options.low_cpu_mem_usage);
  CHECK(options.activate);
  CHECK_FALSE(options.replace);
  CHECK_FALSE(options.strict_targets);
  CHECK(options.seed == 0);
  CHECK(options.state_dict == nullptr);
  const graft::InjectOptions some{
      .low_cpu_mem_usage = true, .activate = false, .replace = true, .strict_targets = true, .seed = 3};
  CHECK(some.file == nullptr);
  CHECK(some.instead_of == nullptr);
}
