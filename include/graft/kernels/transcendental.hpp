#pragma once

#include <cmath>

#include "vector.hpp"

// exp, erf and tanh of whole registers, for the bodies of kernels. float: polynomials, within a few units in the
// last place; double: the standard library's, lane by lane. NaN stays NaN, infinities give the limits.
#define GRAFT_KERNELS "transcendental.inc"
#include "for_each_isa.inc"
