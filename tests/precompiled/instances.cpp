// What the tests share of the library, compiled once for all of them.
#define GRAFT_INSTANTIATE
#include <graft/adapters/factorisation.hpp>
#include <graft/graft.hpp>
#include <graft/io.hpp>
#include <graft/state_dict/convert_to_lora.hpp>
#include <graft/state_dict/eva.hpp>
#include <graft/train.hpp>
