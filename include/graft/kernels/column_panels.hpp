#pragma once

#include "weight_view.hpp"

// A matrix in panels of a few registers' columns, each panel row by row: what products read that sum down its columns.
#define GRAFT_KERNELS "column_panels.inc"
#include "for_each_isa.inc"
