#include <graft/serving/serve_code.hpp>

#include <doctest/doctest.h>

using graft::ServeCode;

TEST_CASE("serve codes: numbers and names are fixed") {
  const std::pair<int, const char*> all[] = {{0, "ok"}, {1, "unknown_adapter"}, {2, "name_taken"}, {3, "invalid_name"},
                                             {4, "generation_conflict"}, {5, "too_many_adapters"}, {6, "rank_too_large"},
                                             {7, "adapter_too_large"}, {8, "unsupported"}, {9, "invalid_config"},
                                             {10, "wrong_model"}, {11, "unreadable"}, {12, "model_is_merged"}, {13, "internal"}};
  for (const auto& [number, name] : all) CHECK(graft::to_string(ServeCode(number)) == name);
}

TEST_CASE("serve codes: every error has one") {
  CHECK(graft::serve_code_of(graft::ConfigError("a", "b", "c")) == ServeCode::invalid_config);
  CHECK(graft::serve_code_of(graft::StateDictError("a", "b", "c")) == ServeCode::wrong_model);
  CHECK(graft::serve_code_of(graft::FileError("a", "b", "c")) == ServeCode::unreadable);
  CHECK(graft::serve_code_of(graft::MergeError("a", "b", "c")) == ServeCode::model_is_merged);
  CHECK(graft::serve_code_of(graft::CacheError("a", "b", "c")) == ServeCode::internal);
  try {
    graft::detail::refuse<ServeCode::name_taken>("problem", "why", "fix");
  } catch (const graft::Error& error) {
    CHECK(graft::serve_code_of(error) == ServeCode::name_taken);
    CHECK(error.problem == "problem");
  }
}
