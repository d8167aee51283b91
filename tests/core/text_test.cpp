#include <doctest/doctest.h>

#include <graft/core/text.hpp>
#include <string>
#include <vector>

using graft::matches;
using Strings = std::vector<std::string>;

TEST_CASE("a path matches a target that is its end, by whole segments") {
  static_assert(matches("q_proj", "q_proj"));
  static_assert(matches("layers.0.self_attn.q_proj", "q_proj"));
  static_assert(matches("layers.0.self_attn.q_proj", "self_attn.q_proj"));
  static_assert(!matches("layers.0.self_attn.q_proj", "proj"));
  static_assert(!matches("layers.0.self_attn.q_proj", "0.q_proj"));
  static_assert(!matches("q_proj", "self_attn.q_proj"));
  static_assert(!matches("layers.0", "layers"));
  static_assert(!matches("layers.10", "0"));
  static_assert(!matches("", "q_proj"));
  static_assert(!matches("q_proj", ""));
  static_assert(!matches("", ""));
}

TEST_CASE("a star in a path stands for one segment") {
  static_assert(matches("layers.*.q_proj", "layers.11.q_proj"));
  static_assert(matches("layers.*.q_proj", "7.q_proj"));
  static_assert(matches("layers.*.q_proj", "*.q_proj"));
  static_assert(matches("layers.*", "3"));
  static_assert(!matches("layers.*.q_proj", "layers.1.2.q_proj"));
  static_assert(matches("layers.*.q_proj", "any_key.q_proj"));
  static_assert(!matches("layers.*.q_proj", "model.layers.1.q_proj"));
  static_assert(!matches("layers.*.q_proj", "layers.1.k_proj"));
  static_assert(!matches("layers.1.q_proj", "*.q_proj"));
}

TEST_CASE("ends_with_segment compares characters, a star included") {
  static_assert(graft::ends_with_segment("a.b.c", "b.c"));
  static_assert(graft::ends_with_segment("a.b.c", "a.b.c"));
  static_assert(!graft::ends_with_segment("a.*", "b"));
  static_assert(!graft::ends_with_segment("a.bc", "c"));
  static_assert(!graft::ends_with_segment("a", ""));
}

TEST_CASE("segments are visited first to last") {
  const auto listed = [](std::string_view path) {
    Strings all;
    for (const std::string_view segment : graft::segments(path)) all.emplace_back(segment);
    return all;
  };
  CHECK(listed("layers.0.q_proj") == Strings{"layers", "0", "q_proj"});
  CHECK(listed("q_proj") == Strings{"q_proj"});
  CHECK(listed("") == Strings{});
  CHECK(listed("a..b.") == Strings{"a", "", "b", ""});
  for (const std::string_view path : {"", "a", "a.b.c", "a..b."})
    CHECK(graft::segment_count(path) == listed(path).size());
}

TEST_CASE("parts of a path") {
  static_assert(graft::last_segment("layers.0.q_proj") == "q_proj");
  static_assert(graft::last_segment("q_proj") == "q_proj");
  static_assert(graft::parent_path("layers.0.q_proj") == "layers.0");
  static_assert(graft::parent_path("q_proj").empty());
  static_assert(graft::ancestor_path("layers.0.q_proj", 0) == "layers.0.q_proj");
  static_assert(graft::ancestor_path("layers.0.q_proj", 2) == "layers");
  static_assert(graft::ancestor_path("layers.0.q_proj", 4).empty());
  static_assert(graft::last_segments("layers.0.q_proj", 0).empty());
  static_assert(graft::last_segments("layers.0.q_proj", 1) == "q_proj");
  static_assert(graft::last_segments("layers.0.q_proj", 2) == "0.q_proj");
  static_assert(graft::last_segments("layers.0.q_proj", 3) == "layers.0.q_proj");
  static_assert(graft::last_segments("layers.0.q_proj", 9) == "layers.0.q_proj");
}

TEST_CASE("join puts the separator between texts only") {
  CHECK(graft::join(Strings{}, ", ").empty());
  CHECK(graft::join(Strings{"a"}, ", ") == "a");
  CHECK(graft::join(std::vector<std::string_view>{"", "b", ""}, ", ") == ", b, ");
}

TEST_CASE("edit distance counts a swap of neighbours as one") {
  CHECK(graft::edit_distance("q_proj", "q_proj") == 0);
  CHECK(graft::edit_distance("q_porj", "q_proj") == 1);
  CHECK(graft::edit_distance("q_prj", "q_proj") == 1);
  CHECK(graft::edit_distance("q_prooj", "q_proj") == 1);
  CHECK(graft::edit_distance("k_proj", "q_proj") == 1);
  CHECK(graft::edit_distance("", "abc") == 3);
  CHECK(graft::edit_distance("abc", "") == 3);
  CHECK(graft::edit_distance("kitten", "sitting") == 3);
  CHECK(graft::edit_distance("ca", "abc") == 3);  // 2 if a swapped pair could be edited again
}

TEST_CASE("near names answer with as many last segments as the name has, nearest first") {
  const Strings paths{"", "layers.0.q_proj", "layers.1.q_proj", "layers.0.o_proj", "layers.0.norm", "head"};
  CHECK(graft::nearest_names("q_porj", paths) == Strings{"q_proj", "o_proj"});
  CHECK(graft::nearest_names("0.q_porj", paths) == Strings{"0.q_proj", "1.q_proj", "0.o_proj"});
  CHECK(graft::nearest_names("0.q_porj", paths, 1) == Strings{"0.q_proj"});
  CHECK(graft::nearest_names("embedding", paths).empty());
  CHECK(graft::nearest_names("hea", paths) == Strings{"head"});
}

TEST_CASE("a candidate whose end is the name is answered whole, the name itself never") {
  CHECK(graft::nearest_names("linear.weight", Strings{"base.linear.weight"}) ==
        Strings{"base.linear.weight"});
  CHECK(graft::nearest_names("linear", Strings{"linear"}).empty());
}
