#pragma once

/// PEFT's files: directories with adapter_config.json and adapter_model.safetensors.

#include "graft.hpp"
#include "io/adapter_config.hpp"
#include "io/hotswap_directory.hpp"
#include "io/pretrained.hpp"
#include "io/safetensors.hpp"
#include "regex.hpp"
