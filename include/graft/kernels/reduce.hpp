#pragma once

#include "vector.hpp"

// Registers to the sums of their lanes, for the bodies of kernels.
#define GRAFT_KERNELS "reduce.inc"
#include "for_each_isa.inc"
