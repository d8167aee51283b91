#pragma once

#include "weight_view.hpp"

// A FourBitView a group of columns at a time: with AVX2 in half the time that its registers would take one by one.
#define GRAFT_KERNELS "four_bit_groups.inc"
#include "for_each_isa.inc"
