#include "graft/adapters/pattern.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

using namespace graft;

TEST_CASE("plain pattern keys match whole components at the end of a path, as PEFT's get_pattern_key") {
  const std::vector<std::string> paths{
      "q_proj",   "model.layers.0.q_proj", "model.layers.10.q_proj", "xq_proj", "a.xq_proj",
      "q_proj.x", "layers.0.q_proj"};
  struct Case {
    const char* pattern;
    const char* matches;  // of the paths above, by PEFT 0.21.2
  };
  const std::vector<Case> cases{{"q_proj", "1110001"},   {"layers.0.q_proj", "0100001"},
                                {"0.q_proj", "0100001"}, {"proj", "0000000"},
                                {"layers", "0000000"},   {"model.layers.0.q_proj", "0100000"},
                                {"q_proj.x", "0000010"}};
  for (const Case& one : cases)
    for (std::size_t i = 0; i < paths.size(); ++i) {
      CAPTURE(one.pattern);
      CAPTURE(paths[i]);
      CHECK(matches_pattern(one.pattern, paths[i]) == (one.matches[i] == '1'));
    }
}

TEST_CASE("in a plain pattern a dot is a dot") {
  CHECK(matches_pattern("a.b", "x.a.b"));
  CHECK_FALSE(matches_pattern("a.b", "x.acb"));
  CHECK_FALSE(matches_pattern("a.b", "xa.b"));
}

TEST_CASE("which patterns are plain") {
  for (const char* pattern : {"", "q_proj", "layers.0.Q1"}) CHECK(is_plain_pattern(pattern));
  for (const char* pattern : {"q-proj", "^q", "q*", "\u00e9", "a b", "a|b"})
    CHECK_FALSE(is_plain_pattern(pattern));
}

TEST_CASE("the layer's number is the one that PEFT finds, and at the top level more") {
  struct Case {
    const char* path;
    std::vector<const char*> layers_patterns;
    int index;  // by PEFT 0.21.2; -1: it finds none
  };
  const std::vector<Case> cases{
      {"a.layers.3.q", {}, 3},
      {"a.layers.3.q", {"layers", "h"}, 3},
      {"layers.3.q", {}, -1},
      {"layers.3.q", {"layers", "h"}, 3},
      {"a.b.c.12.x.7.q", {}, 12},
      {"a.b.c.12.x.7.q", {"layers", "h"}, -1},
      {"a.b.c.12.x.7.q", {"a.b.c"}, 12},
      {"3.q", {}, -1},
      {"3.q", {"layers", "h"}, -1},
      {"a.3.q", {}, -1},
      {"a.3.q", {"layers", "h"}, -1},
      {"model.layers.1.experts.0.q", {}, 1},
      {"model.layers.1.experts.0.q", {"layers", "h"}, 1},
      {"layers.1.experts.0.q", {}, 0},
      {"layers.1.experts.0.q", {"layers", "h"}, 1},
      {"a.layers.q", {}, -1},
      {"a.layers.q", {"layers", "h"}, -1},
      {"a.layers.3x.q", {}, -1},
      {"a.layers.3x.q", {"layers", "h"}, -1},
      {"h.5.q", {}, -1},
      {"h.5.q", {"h"}, 5},
      {"h.5.q", {"layers", "h"}, 5},
      {"model.h.5.q", {}, 5},
      {"model.h.5.q", {"h"}, 5},
      {"model.h.5.q", {"layers", "h"}, 5},
      {"a.h.b.6.q", {}, 6},
      {"a.h.b.6.q", {"layers", "h"}, -1},
      {"model.h.5.layers.2.q", {}, 5},
      {"model.h.5.layers.2.q", {"h"}, 5},
      {"model.h.5.layers.2.q", {"layers", "h"}, 2},
      {"a..7.q", {}, 7},
      {"a..7.q", {"layers", "h"}, -1},
      {"a.b.-3.q", {}, -1},
      {"a.b.-3.q", {"layers", "h"}, -1},
      {"a.b.007.q", {}, 7},
      {"a.b.007.q", {"layers", "h"}, -1},
      {"layers.2.layers.3.q", {}, 3},
      {"layers.2.layers.3.q", {"layers", "h"}, 2},
      {"model.layers.4.h.5.q", {}, 4},
      {"model.layers.4.h.5.q", {"h"}, 5},
      {"model.layers.4.h.5.q", {"layers", "h"}, 4},
      {"0.1.2.q", {}, 2},
      {"0.1.2.q", {"layers", "h"}, -1},
      {"xh.5.q", {}, -1},
      {"xh.5.q", {"layers", "h"}, -1},
  };
  for (const Case& one : cases) {
    CAPTURE(one.path);
    CAPTURE(one.layers_patterns.size());
    const auto layer = layer_index(one.path, {one.layers_patterns.begin(), one.layers_patterns.end()});
    CHECK((layer && layer->peft_agrees ? layer->index : -1) == one.index);
  }
  CHECK(layer_index("layers.3.q", {}) == LayerIndex{3, false});
  CHECK(layer_index("h.5.q", {}) == LayerIndex{5, false});
  CHECK(layer_index("layers.3.q", {"h"}) == std::nullopt);
  CHECK(layer_index("3.q", {}) == std::nullopt);
  CHECK(layer_index("a.layers.99999999999.q", {}) == std::nullopt);
  CHECK(layer_index("", {}) == std::nullopt);
}
