#include <graft/adapters/init_scheme.hpp>

#include <doctest/doctest.h>

using graft::InitScheme;

TEST_CASE("PEFT's names of initialisations: case matters for all but gaussian and olora") {
  CHECK(graft::init_scheme(true) == InitScheme::identity);
  CHECK(graft::init_scheme(false) == InitScheme::random);
  CHECK(graft::init_scheme("Gaussian") == InitScheme::gaussian);
  CHECK(graft::init_scheme("OLoRA") == InitScheme::olora);
  CHECK(graft::init_scheme("pissa") == InitScheme::pissa);
  CHECK(graft::init_scheme("pissa_niter_16") == InitScheme::iterated_pissa);
  CHECK(graft::init_scheme("orthogonal") == InitScheme::orthogonal);
  CHECK(graft::init_scheme("eva") == InitScheme::eva);
  for (const char* unknown :
       {"PiSSA", "pissa_niter_", "pissa_niter_4x", "pissa_niter_1234567", "Eva", "orthogonal ", "svd"})
    CHECK(graft::init_scheme(unknown) == InitScheme::unknown);
}

TEST_CASE("only PiSSA and OLoRA take their start out of the base") {
  for (const char* scheme : {"pissa", "pissa_niter_4", "olora"})
    CHECK(graft::takes_from_base(graft::init_scheme(scheme)));
  for (const char* scheme : {"orthogonal", "eva", "gaussian"})
    CHECK_FALSE(graft::takes_from_base(graft::init_scheme(scheme)));
  CHECK_FALSE(graft::takes_from_base(InitScheme::identity));
}
