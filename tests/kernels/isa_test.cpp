#include "graft/kernels/isa.hpp"

#include <doctest/doctest.h>

#include <cstdlib>
#include <string>

using graft::kernels::Isa;
namespace kernels = graft::kernels;

TEST_CASE("the instruction set is one that was compiled and that the processor has") {
  const Isa chosen = kernels::isa();
  CHECK(kernels::detail::processor_has(chosen));
  CHECK(int(chosen) >= GRAFT_FLAGS_ISA);
  CHECK(int(chosen) <= GRAFT_BEST_ISA);
}

TEST_CASE("only registers of 64 bytes are split") {
  if (kernels::isa() != Isa::avx512) CHECK(!kernels::splits_registers());
}

TEST_CASE("the environment chooses among what the processor has, and what it does not know is passed over") {
  const char* before = std::getenv("GRAFT_ISA");
  const std::string kept = before ? before : "";
  ::unsetenv("GRAFT_ISA");
  const Isa best = kernels::detail::choose_isa();
  for (const Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) {
    ::setenv("GRAFT_ISA", kernels::name_of(isa), 1);
    const bool possible = int(isa) >= GRAFT_FLAGS_ISA && int(isa) <= int(best);
    CHECK(kernels::detail::choose_isa() == (possible ? isa : best));
  }
  for (const char* unknown : {"", "AVX2", "avx-512", "neon"}) {
    ::setenv("GRAFT_ISA", unknown, 1);
    CHECK(kernels::detail::choose_isa() == best);
  }
  before ? ::setenv("GRAFT_ISA", kept.c_str(), 1) : ::unsetenv("GRAFT_ISA");
}
