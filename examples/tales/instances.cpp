// What the files of this program share of graft, compiled once: the others are compiled with GRAFT_EXTERN_TEMPLATES.
#define GRAFT_INSTANTIATE
#include <graft/graft.hpp>
#include <graft/io.hpp>
#include <graft/train.hpp>
