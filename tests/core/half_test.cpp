#include <graft/core/half.hpp>

#include <cmath>
#include <cstdint>
#include <limits>

#include <doctest/doctest.h>

TEST_CASE("half floats: every value survives a round trip through float") {
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const graft::bf16 b = graft::bf16::from_bits(std::uint16_t(bits));
    const graft::f16 h = graft::f16::from_bits(std::uint16_t(bits));
    if (std::isnan(float(b))) CHECK(std::isnan(float(graft::bf16(float(b)))));
    else CHECK(graft::bf16(float(b)).bits == bits);
    if (std::isnan(float(h))) CHECK(std::isnan(float(graft::f16(float(h)))));
    else CHECK(graft::f16(float(h)).bits == bits);
  }
}

// torch.tensor([...]).bfloat16() / .half(), as bits: ties go to the even neighbour
TEST_CASE("half floats: rounding is to nearest even") {
  CHECK(graft::bf16(1.0f + 0x1p-8f).bits == 0x3f80);
  CHECK(graft::bf16(1.0f + 3 * 0x1p-8f).bits == 0x3f82);
  CHECK(graft::bf16(3.4e38f).bits == 0x7f80);  // above the largest bf16
  CHECK(graft::f16(1.0f + 0x1p-11f).bits == 0x3c00);
  CHECK(graft::f16(1.0f + 3 * 0x1p-11f).bits == 0x3c02);
  CHECK(graft::f16(65519.0f).bits == 0x7bff);
  CHECK(graft::f16(65520.0f).bits == 0x7c00);
  CHECK(graft::f16(0x1p-24f).bits == 0x0001);
  CHECK(graft::f16(0x1p-25f).bits == 0x0000);
  CHECK(graft::f16(0x1.8p-24f).bits == 0x0002);
  CHECK(float(graft::f16::from_bits(0xc000)) == -2.0f);
  CHECK(std::isinf(float(graft::f16::from_bits(0x7c00))));
}
