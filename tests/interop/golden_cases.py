"""The committed cases: each method x layer x option once, small, with different primes for all dimensions."""
import cases
from cases import adapter, fresh, loaded, low_level, several


def mlp(seed, dtype="f32", bias=True):
    return cases.model("mlp", {"in": 5, "hidden": 7, "middle": 3, "out": 2, "bias": bias}, seed, dtype, rows=3)


def mlp_on_tensors(seed):
    return mlp(seed) | {"input_shape": [2, 3, 5]}


def decoder(seed, layers=2, bias=False, **embedding):
    sizes = {"vocabulary": 11, "hidden": 3, "inner": 5, "wide": 7, "layers": layers, "bias": bias}
    sizes |= {"padding_idx": None, "max_norm": None, "norm_type": 2.0} | embedding
    return cases.model("decoder", sizes, seed, rows=4)


def transposed(seed):
    return cases.model("transposed", {"in": 5, "hidden": 7, "out": 3}, seed, rows=3)


def attentive(seed, dtype="f32", bias=True, causal=False, heads=2, **more):
    sizes = {"in": 5, "hidden": 6, "heads": heads, "out": 3, "bias": bias, "causal": causal}
    return cases.model("attentive", sizes, seed, dtype, rows=7, **more)


def user(seed, bias=True):
    return cases.model("user", {"vocabulary": 11, "hidden": 5, "out": 3, "bias": bias}, seed, rows=4)


def convolution(channels, kernel, **options):
    n = len(kernel)
    one = {"in": channels[0], "out": channels[1], "kernel": kernel, "stride": [1] * n, "padding": [0] * n}
    one |= {"dilation": [1] * n, "groups": 1, "padding_mode": "zeros", "bias": True}
    return one | options


def conv_net(seed, kernel, shape, **options):
    groups = options.get("groups", 1)
    n = len(kernel)
    sizes = {
        "conv1": convolution((2 * groups, 3 * groups), kernel, **options),
        "conv2": convolution((3 * groups, 5), [1] * n),
    }
    return cases.model("conv", sizes, seed, input_shape=[2, 2 * groups, *shape])


def experts(seed, transposed=False, count=4):
    sizes = {"in": 5, "hidden": 7, "inner": 3, "out": 2, "experts": count, "transposed": transposed}
    return cases.model("experts", sizes, seed, rows=6)


def user_conv(seed):
    sizes = {"conv": convolution((2, 3), [3, 2], stride=[2, 1], padding=[1, 0])}
    return cases.model("user_conv", sizes, seed, input_shape=[2, 2, 5, 4])


LORA = {"r": 2, "lora_alpha": 3}
ADALORA = {"init_r": 4, "target_r": 2, "lora_alpha": 5, "total_step": 100, "tinit": 10, "tfinal": 20}
LIST = {"target_modules": ["fc1", "fc2"]}


def all_cases():
    made, seed = [], [1000]

    def next_seed():
        seed[0] += 10
        return seed[0]

    def add(build, name, model, *rest, **more):
        category = name.split("_")[0]
        made.append(build(category, name, model(next_seed()), *rest, **more))

    def lora(config, name="default", **more):
        return adapter("LORA", LORA | config, next_seed(), name, **more)

    def adalora(config, name="default", **more):
        return adapter("ADALORA", ADALORA | config, next_seed(), name, **more)

    def ia3(config, name="default", **more):
        return adapter("IA3", {"feedforward_modules": []} | config, next_seed(), name, **more)

    def of(make, *args, **options):
        return lambda s: make(s, *args, **options)

    # LoRA on linear layers, option by option
    add(loaded, "lora_linear", mlp, lora(LIST))
    add(loaded, "lora_linear_named", mlp, lora(LIST, "alice"))
    add(loaded, "lora_linear_mapped", mlp, lora(LIST), mapped=True)
    add(loaded, "lora_linear_eager", mlp, lora(LIST), low_cpu_mem_usage=False)
    add(loaded, "lora_linear_no_base_bias", of(mlp, bias=False), lora(LIST))
    add(loaded, "lora_linear_on_tensors", mlp_on_tensors, lora(LIST))
    add(loaded, "lora_rslora", mlp, lora(LIST | {"use_rslora": True}))
    add(loaded, "lora_lora_bias", mlp, lora(LIST | {"lora_bias": True}))
    add(loaded, "lora_lora_bias_no_base_bias", of(mlp, bias=False), lora(LIST | {"lora_bias": True}))
    add(loaded, "lora_dropout", mlp, lora(LIST | {"lora_dropout": 0.25}))
    add(loaded, "lora_init_false", mlp, lora(LIST | {"init_lora_weights": False}))
    add(loaded, "lora_init_gaussian", mlp, lora(LIST | {"init_lora_weights": "gaussian"}))
    add(loaded, "lora_rank_above_dimensions", mlp, lora(LIST | {"r": 13, "lora_alpha": -2.5}))
    add(loaded, "lora_bias_all", mlp, lora(LIST | {"bias": "all"}))
    add(loaded, "lora_bias_lora_only", mlp, lora(LIST | {"bias": "lora_only"}))
    add(loaded, "lora_bias_all_modules_to_save", mlp, lora(LIST | {"bias": "all", "modules_to_save": ["head"]}))
    add(loaded, "lora_modules_to_save", mlp, lora(LIST | {"modules_to_save": ["head"]}))
    add(loaded, "lora_file_bf16", mlp, lora(LIST, file_dtype="bf16"))
    add(loaded, "lora_file_f16", mlp, lora(LIST, file_dtype="f16"))
    add(loaded, "lora_file_f64", mlp, lora(LIST, file_dtype="f64"))
    add(loaded, "lora_base_f64", of(mlp, "f64"), lora(LIST))
    add(loaded, "lora_base_bf16", of(mlp, "bf16"), lora(LIST))
    add(loaded, "lora_base_f16", of(mlp, "f16"), lora(LIST | {"modules_to_save": ["head"]}))
    add(low_level, "lora_bare", mlp, lora(LIST, style="bare"))
    add(low_level, "lora_bare_meta", mlp, lora(LIST | {"modules_to_save": ["head"]}, style="bare"), True)
    add(low_level, "lora_bare_bias_all", mlp, lora(LIST | {"bias": "all"}, style="bare"), source="struct")
    add(low_level, "lora_from_keys", mlp, lora({"target_modules": ["fc2"]}, style="bare"), from_state_dict=True, targets=[])
    add(low_level, "lora_from_keys_meta", mlp, lora(LIST, style="bare"), True, True, targets=["head"])
    add(several, "lora_two", mlp, [lora(LIST), lora({"target_modules": ["fc2", "head"], "r": 3}, "other")], False, 0.3)
    three = [lora(LIST | {"modules_to_save": ["head"]}), lora({"target_modules": ["fc2"]}, "b"), lora(LIST, "c")]
    add(several, "lora_three", mlp, three, True, -1.5)
    add(fresh, "lora_fresh", mlp, lora(LIST, style="bare"))

    # targets and patterns on a deep model
    def deep(name, config, **options):
        add(loaded, "lora_" + name, of(decoder, **options), lora(config))

    deep("all_linear", {"target_modules": "all-linear"})
    add(low_level, "lora_all_linear_config", decoder, lora({"target_modules": "all-linear"}, style="bare"))
    deep("regex", {"target_modules": r".*\.(q|v)_proj"})
    add(low_level, "lora_regex_config", decoder, lora({"target_modules": r"model\.layers\.\d\.mlp\..*"}, style="bare"), source="struct")
    deep("suffix", {"target_modules": ["self_attn.k_proj", "model.layers.1.mlp.up_proj"]})
    deep("exclude_list", {"target_modules": ["q_proj", "up_proj"], "exclude_modules": ["layers.0.self_attn.q_proj"]})
    deep("exclude_regex", {"target_modules": ["q_proj", "up_proj"], "exclude_modules": r".*layers\.1\..*up_proj"})
    deep("layers_to_transform", {"target_modules": ["q_proj", "o_proj"], "layers_to_transform": [0, 2]}, layers=3)
    layers = {"layers_to_transform": 1, "layers_pattern": "layers"}
    deep("layers_pattern", {"target_modules": ["down_proj"]} | layers, layers=3)
    ranks = {"rank_pattern": {"v_proj": 3, ".*up_proj": 4}, "alpha_pattern": {"layers.1.self_attn.v_proj": 7, "up_proj": 0.5}}
    deep("patterns", {"target_modules": ["q_proj", "v_proj", "up_proj"]} | ranks)
    anchored = {"rank_pattern": {r"^model\.layers\.0\.mlp\.up_proj": 5, "^q_proj": 3}}
    deep("patterns_anchored", {"target_modules": ["q_proj", "up_proj"], "use_rslora": True} | anchored)
    deep("modules_to_save_by_end", {"target_modules": ["q_proj"], "modules_to_save": ["head"]})
    deep("modules_to_save_embedding", {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]})
    deep("bias_all_deep", {"target_modules": ["q_proj", "up_proj"], "bias": "all"}, bias=True)
    deep("layers_alike", {"target_modules": ["q_proj"]}, layers=3)
    add(fresh, "lora_fresh_deep", decoder, lora({"target_modules": ["q_proj", "down_proj"]} | ranks, "alice", style="bare"), "file")

    # LoRA on the other layers
    tokens = {"target_modules": ["embed_tokens"]}
    add(loaded, "lora_embedding", decoder, lora(tokens))
    add(loaded, "lora_embedding_padding", of(decoder, padding_idx=1), lora(tokens | {"use_rslora": True}))
    add(loaded, "lora_embedding_max_norm", of(decoder, max_norm=1.5, norm_type=1.0), lora(tokens))
    add(loaded, "lora_embedding_and_linear", decoder, lora({"target_modules": ["embed_tokens", "lm_head", "k_proj"]}), mapped=True)
    add(low_level, "lora_embedding_bare", decoder, lora(tokens, style="bare"), True)
    add(several, "lora_embedding_two", decoder, [lora(tokens), lora(tokens | {"r": 3}, "other")], True)
    add(loaded, "lora_transposed", transposed, lora({"target_modules": ["c_fc", "c_proj"]}))
    add(loaded, "lora_transposed_flag", transposed, lora({"target_modules": ["c_fc"], "fan_in_fan_out": True}))
    add(loaded, "lora_user_layers", user, lora({"target_modules": ["table", "project"]}))
    add(fresh, "lora_user_fresh", user, lora({"target_modules": ["table", "project"]}, style="bare"))
    add(loaded, "lora_user_conv", user_conv, lora({"target_modules": ["conv"]}))
    both = {"target_modules": ["conv1", "conv2"]}
    add(loaded, "lora_conv1d", of(conv_net, [3], [7], stride=[2], padding=[1]), lora(both))
    add(loaded, "lora_conv2d", of(conv_net, [3, 2], [5, 4], stride=[1, 2], padding=[0, 2]), lora(both | {"lora_bias": True}))
    add(loaded, "lora_conv2d_groups", of(conv_net, [2, 3], [4, 5], groups=2), lora(both | {"r": 4}))
    add(loaded, "lora_conv2d_same", of(conv_net, [3, 2], [4, 5], padding="same"), lora(both | {"use_rslora": True}))
    add(loaded, "lora_conv3d", of(conv_net, [2, 1, 3], [4, 3, 4], stride=[1, 2, 1], padding=[1, 0, 1]), lora(both))
    add(low_level, "lora_conv2d_bare", of(conv_net, [3, 2], [5, 4]), lora(both, style="bare"), True)
    add(several, "lora_conv1d_two", of(conv_net, [3], [7]), [lora(both), lora(both | {"r": 3}, "other")], True, 2.0)

    # AdaLoRA
    add(loaded, "adalora_linear", mlp, adalora(LIST))
    add(loaded, "adalora_pruned", mlp, adalora(LIST | {"target_modules": ["fc1", "fc2", "head"]}, pruned=True))
    add(loaded, "adalora_pruned_deep", decoder, adalora({"target_modules": ["q_proj", "down_proj"]}, pruned=True), mapped=True)
    add(loaded, "adalora_alpha_zero", mlp, adalora(LIST | {"lora_alpha": 0}))
    add(loaded, "adalora_alpha_negative", mlp, adalora(LIST | {"lora_alpha": -3, "lora_dropout": 0.1}))
    add(loaded, "adalora_bias_all", mlp, adalora(LIST | {"bias": "all"}, "alice"))
    add(loaded, "adalora_bias_lora_only", mlp, adalora(LIST | {"bias": "lora_only"}, pruned=True))
    add(loaded, "adalora_modules_to_save", mlp, adalora(LIST | {"modules_to_save": ["head"]}))
    add(loaded, "adalora_layers_to_transform", decoder, adalora({"target_modules": ["v_proj"], "layers_to_transform": [1]}))
    add(loaded, "adalora_transposed", transposed, adalora({"target_modules": ["c_fc", "c_proj"]}, pruned=True))
    add(loaded, "adalora_user", user, adalora({"target_modules": ["project"]}))
    add(loaded, "adalora_conv2d", of(conv_net, [3, 2], [5, 4], stride=[2, 1], padding=[1, 0]), adalora(both))
    add(loaded, "adalora_conv2d_dilated", of(conv_net, [3, 2], [6, 5], dilation=[2, 1]), adalora(both, pruned=True))
    add(several, "adalora_two", mlp, [adalora(LIST, pruned=True), adalora(LIST | {"init_r": 3, "target_r": 1}, "other")], True)
    add(low_level, "adalora_bare", mlp, adalora(LIST, style="bare"), True)
    add(low_level, "adalora_from_keys", mlp, adalora(LIST, style="bare"), from_state_dict=True, targets=[])
    add(fresh, "adalora_fresh", mlp, adalora(LIST, style="bare"))

    # IA3
    add(loaded, "ia3_linear", mlp, ia3(LIST))
    add(loaded, "ia3_feedforward", mlp, ia3(LIST | {"feedforward_modules": ["fc1", "fc2"]}))
    add(loaded, "ia3_mixed", decoder, ia3({"target_modules": ["k_proj", "v_proj", "down_proj"], "feedforward_modules": ["down_proj"]}))
    add(loaded, "ia3_regex", decoder, ia3({"target_modules": r".*(k|down)_proj", "feedforward_modules": r".*mlp\..*"}), mapped=True)
    add(loaded, "ia3_no_base_bias", of(mlp, bias=False), ia3(LIST, "alice"))
    add(loaded, "ia3_modules_to_save", mlp, ia3(LIST | {"modules_to_save": ["head"]}))
    add(loaded, "ia3_transposed", transposed, ia3({"target_modules": ["c_fc", "c_proj"], "feedforward_modules": ["c_proj"]}))
    add(loaded, "ia3_user", user, ia3({"target_modules": ["project"]}))
    add(loaded, "ia3_base_bf16", of(mlp, "bf16"), ia3(LIST | {"feedforward_modules": ["fc2"]}))
    forward_1 = both | {"feedforward_modules": ["conv1"]}
    add(loaded, "ia3_conv2d", of(conv_net, [3, 2], [5, 4], stride=[2, 1], padding=[1, 0]), ia3(forward_1))
    reflected = {"dilation": [1, 2], "padding": [1, 1], "padding_mode": "reflect"}
    add(loaded, "ia3_conv2d_options", of(conv_net, [3, 2], [5, 4], groups=2, **reflected), ia3(forward_1))
    add(loaded, "ia3_conv3d", of(conv_net, [2, 1, 2], [3, 3, 4]), ia3(both | {"feedforward_modules": ["conv2"]}))
    add(loaded, "ia3_user_conv", user_conv, ia3({"target_modules": ["conv"]}))
    mixed = LIST | {"feedforward_modules": ["fc2"]}
    add(several, "ia3_two", mlp, [ia3(mixed), ia3(mixed, "other")], True)
    add(low_level, "ia3_bare", mlp, ia3(mixed, style="bare"), True)
    add(low_level, "ia3_from_keys", mlp, ia3(mixed, style="bare"), from_state_dict=True)
    add(fresh, "ia3_fresh", decoder, ia3({"target_modules": ["k_proj", "down_proj"], "feedforward_modules": ["down_proj"]}, style="bare"))
    # With alpha <= 0 PEFT scales by the rank, and after a load by the rank that was kept.
    add(loaded, "adalora_pruned_alpha_zero", mlp, adalora(LIST | {"init_r": 7, "lora_alpha": 0}, pruned=True))

    # Narrow weights in other layers than linear ones, a transposed layer's flag, methods beside each other.
    ends = {"target_modules": ["embed_tokens", "v_proj", "lm_head"]}
    add(loaded, "lora_embedding_base_bf16", lambda s: decoder(s) | {"dtype": "bf16"}, lora(ends))
    narrow_conv = of(conv_net, [3, 2], [5, 4], stride=[2, 1], padding=[1, 0])
    add(loaded, "lora_conv2d_base_bf16", lambda s: narrow_conv(s) | {"dtype": "bf16"}, lora(both))
    add(loaded, "lora_conv1d_base_f16", lambda s: conv_net(s, [3], [7]) | {"dtype": "f16"}, lora(both))
    add(loaded, "lora_conv2d_modules_to_save", narrow_conv, lora({"target_modules": ["conv1"], "modules_to_save": ["conv2"]}))
    flagged = {"target_modules": ["c_fc", "c_proj"], "fan_in_fan_out": True}
    add(low_level, "lora_transposed_flagged", transposed, lora(flagged, style="bare"), source="struct")
    beside = [adalora({"target_modules": ["fc2"]}, "one", style="bare"), lora({"target_modules": ["fc1"]}, "two", style="bare")]
    beside += [ia3({"target_modules": ["head"]}, "three", style="bare")]
    add(cases.mixed, "mixed_methods", mlp, beside)
    # In adalora_conv2d_dilated pruning takes all ranks of the dilated layer; here it keeps them.
    dilated = of(conv_net, [3, 2], [6, 5], dilation=[2, 1], padding=[1, 1], padding_mode="reflect")
    add(loaded, "adalora_conv2d_dilated_kept", dilated, adalora(both))

    # DoRA, with seeds of its own: cases may come and go before it
    seed[0] = 6000

    def dora(config, name="default", **more):
        return lora(config | {"use_dora": True}, name, **more)

    rslora = {"r": 3, "use_rslora": True, "lora_dropout": 0.25, "bias": "lora_only"}
    add(loaded, "lora_dora", mlp, dora(LIST))
    add(loaded, "lora_dora_rslora", mlp, dora(LIST | rslora), mapped=True)
    add(loaded, "lora_dora_no_base_bias", of(mlp, bias=False), dora(LIST | {"bias": "all", "modules_to_save": ["head"]}))
    add(loaded, "lora_dora_base_f64", of(mlp, "f64"), dora(LIST, "alice"))
    add(loaded, "lora_dora_base_bf16", of(mlp, "bf16"), dora(LIST, file_dtype="bf16"))
    add(low_level, "lora_dora_bare", mlp, dora(LIST | {"bias": "all"}, style="bare"), True, source="struct")
    add(low_level, "lora_dora_from_keys", mlp, dora(LIST, style="bare"), from_state_dict=True, targets=[])
    add(fresh, "lora_dora_fresh", mlp, dora(LIST, style="bare"))
    other = {"target_modules": ["fc2", "head"], "r": 3}
    add(several, "lora_dora_two", mlp, [dora(LIST), dora(other | rslora | {"bias": "none"}, "other")], True, 0.3)
    add(several, "lora_dora_and_lora", mlp, [dora(LIST), lora(other, "other")], False, -1.5)
    add(several, "lora_and_dora", of(mlp, "f64"), [lora(LIST), dora(other, "other")], True, 2.0)
    ends = {"target_modules": ["embed_tokens", "k_proj", "lm_head"]}
    add(loaded, "lora_dora_embedding", of(decoder, bias=True, padding_idx=1), dora(ends | {"use_rslora": True}))
    add(several, "lora_dora_embedding_two", decoder, [dora(tokens), dora(ends | {"r": 3}, "b"), lora(tokens, "c")], True, 0.3)
    add(loaded, "lora_dora_transposed", transposed, dora({"target_modules": ["c_fc", "c_proj"]}))
    add(loaded, "lora_dora_user", user, dora({"target_modules": ["table", "project"]}))
    add(loaded, "lora_dora_user_conv", user_conv, dora({"target_modules": ["conv"]}))
    add(loaded, "lora_dora_conv1d", of(conv_net, [3], [7], stride=[2], padding=[1]), dora(both))
    add(several, "lora_dora_conv2d", of(conv_net, [3, 2], [5, 4], padding=[1, 0]), [dora(both), dora(both | {"r": 3}, "b")], True, 2.0)
    add(loaded, "lora_dora_conv3d", of(conv_net, [2, 1, 3], [4, 3, 4], stride=[1, 2, 1]), dora(both | {"use_rslora": True}))

    # Trained tokens, with seeds of their own: every id of the vocabulary of 11 is in some input
    seed[0] = 7000
    q = {"target_modules": ["q_proj"]}
    few, some, others = [7, 0, 3, 10, 5], [1, 2, 4, 6], [8, 9, 7]
    add(loaded, "lora_tokens", decoder, lora(q | {"trainable_token_indices": few}))
    add(loaded, "lora_tokens_mapped", of(decoder, bias=True), lora(q | {"trainable_token_indices": {"model.embed_tokens": few}, "bias": "all"}), mapped=True)
    add(loaded, "lora_tokens_max_norm", of(decoder, max_norm=1.5, norm_type=1.0), lora(q | {"trainable_token_indices": few + some}))
    add(loaded, "lora_tokens_of_head", decoder, lora(q | {"trainable_token_indices": {"lm_head": some, "embed_tokens": few}}))
    add(loaded, "lora_tokens_tied", of(decoder, tied=True), lora(q | {"trainable_token_indices": few}))
    add(low_level, "lora_tokens_bare", decoder, lora(q | {"trainable_token_indices": few + others}, style="bare"), True, source="struct", bare=True)
    tie = {"target_modules": ["lm_head"], "ensure_weight_tying": True}  # PEFT saves no embedding whole then
    add(loaded, "lora_tied", of(decoder, tied=True), lora(tie))
    add(low_level, "lora_tied_bare", of(decoder, tied=True), lora(tie | {"r": 3}, style="bare"), True, source="struct")
    add(fresh, "lora_tokens_fresh", decoder, lora(q | {"trainable_token_indices": {"embed_tokens": few}}, style="bare"))
    # LoRA on parameters
    of_mlp = {"target_parameters": ["fc1.weight", "head.weight"]}
    stacks = {"target_parameters": ["experts.gate_up_proj", "experts.down_proj"]}
    with_fc = stacks | {"target_modules": ["fc", "head"]}
    add(loaded, "lora_parameters_linear", mlp, lora(of_mlp))
    add(loaded, "lora_parameters_linear_and_module", mlp, lora(of_mlp | {"target_modules": ["fc2"], "use_rslora": True}))
    add(loaded, "lora_parameters_linear_bias", mlp, lora(of_mlp | {"target_modules": [], "bias": "lora_only"}))
    add(loaded, "lora_parameters_linear_bias_all", mlp, lora(of_mlp | {"target_modules": [], "bias": "all"}))
    add(loaded, "lora_parameters_linear_base_bf16", of(mlp, "bf16"), lora(of_mlp))
    add(loaded, "lora_parameters_transposed", transposed, lora({"target_parameters": ["c_fc.weight"]}))
    add(loaded, "lora_parameters_embedding", of(decoder, padding_idx=1), lora({"target_parameters": ["embed_tokens.weight", "q_proj.weight"]}))
    add(loaded, "lora_parameters_one_stack", experts, lora({"target_parameters": ["down_proj"]}))
    add(loaded, "lora_parameters_stacks", experts, lora(stacks))
    add(loaded, "lora_parameters_stacks_mapped", experts, lora(stacks, "alice"), mapped=True)
    add(loaded, "lora_parameters_stacks_transposed", of(experts, transposed=True), lora(with_fc))
    add(loaded, "lora_parameters_stack_of_one", of(experts, count=1), lora(stacks))
    sizes = {"rank_pattern": {"down_proj": 3, "mixer.weight": 1}, "alpha_pattern": {"experts.gate_up_proj": 5, "tail": -2}}
    four = {"target_parameters": ["tail", "mixer.weight", "down_proj", "gate_up_proj"]}
    add(loaded, "lora_parameters_of_two_modules", experts, lora(four | sizes | {"use_rslora": True}))
    add(loaded, "lora_parameters_of_two_modules_transposed", of(experts, transposed=True), lora(four | sizes))
    add(loaded, "lora_parameters_modules_to_save", experts, lora(stacks | {"modules_to_save": ["head"]}))
    add(several, "lora_parameters_two", experts, [lora(with_fc), lora(stacks | {"r": 3}, "other")], False, 0.3)
    add(low_level, "lora_parameters_bare", experts, lora(with_fc, style="bare"), source="struct")
    add(low_level, "lora_parameters_bare_meta", experts, lora(four, style="bare"), True)
    add(fresh, "lora_parameters_fresh", experts, lora(with_fc | sizes, style="bare"))
    add(fresh, "lora_parameters_fresh_four", of(experts, transposed=True), lora(four, "alice", style="bare"), "file")

    # torch's MultiheadAttention, with seeds of its own
    seed[0] = 8000
    attn = {"target_modules": ["self_attn", "cross_attn"]}
    add(loaded, "lora_attention", attentive, lora(attn))
    add(loaded, "lora_attention_batch", of(attentive, input_shape=[2, 4, 5], causal=True, heads=3), lora(attn | {"use_rslora": True, "r": 3}), mapped=True)
    patterns = {"rank_pattern": {"self_attn": 3}, "alpha_pattern": {"cross_attn": 7}, "lora_dropout": 0.25, "bias": "lora_only"}
    add(loaded, "lora_attention_patterns", of(attentive, bias=True), lora(attn | patterns, "alice"))
    add(loaded, "lora_attention_no_bias", of(attentive, bias=False, causal=True), lora({"target_modules": ["self_attn", "head"]}))
    saved = {"target_modules": ["fc", "self_attn"], "modules_to_save": ["cross_attn"]}
    add(loaded, "lora_attention_saved_whole", attentive, lora(saved | {"bias": "all"}))
    add(loaded, "lora_attention_base_bf16", of(attentive, "bf16"), lora(attn))
    add(several, "lora_attention_two", of(attentive, "f64"), [lora(attn), lora({"target_modules": ["cross_attn", "fc"], "r": 3}, "b")], True, 0.3)
    add(low_level, "lora_attention_bare", attentive, lora(attn, style="bare"), True, source="struct", bare=True)
    add(low_level, "lora_attention_from_keys", attentive, lora(attn | {"r": 3}, style="bare"), from_state_dict=True, targets=[])
    add(fresh, "lora_attention_fresh", attentive, lora({"target_modules": ["fc", "self_attn"]}, style="bare"), "file", bare=True)
    packed = {"target_parameters": ["self_attn.in_proj_weight"]}
    add(loaded, "lora_attention_parameter", attentive, lora(packed | {"target_modules": ["head"], "r": 3}))
    add(loaded, "lora_attention_parameter_base_bf16", of(attentive, "bf16"), lora(packed | {"use_rslora": True}), mapped=True)
    both = {"target_parameters": ["in_proj_weight"]}
    add(several, "lora_attention_parameter_two", attentive, [lora(both), lora(both | {"r": 3}, "b")], True, 0.3)
    add(fresh, "lora_attention_parameter_fresh", attentive, lora(both, style="bare"))

    # norms are saved whole
    saved = {"target_modules": ["q_proj", "down_proj"], "modules_to_save": ["norm"]}
    add(loaded, "lora_saved_norms", decoder, lora(saved))
    add(loaded, "lora_saved_norm_bias_all", of(decoder, bias=True), lora(saved | {"modules_to_save": ["layers.1.norm"], "bias": "all"}), mapped=True)
    add(several, "lora_saved_norms_two", decoder, [lora(saved), lora({"target_modules": ["up_proj"], "r": 3}, "b")], True)

    # modules of several layers are saved whole
    saved = {"target_modules": ["q_proj", "lm_head"], "modules_to_save": ["mlp"]}
    add(loaded, "lora_saved_module", decoder, lora(saved))
    add(loaded, "lora_saved_module_bias_all", of(decoder, bias=True), lora(saved | {"modules_to_save": ["layers.1"], "bias": "all"}), mapped=True)
    add(several, "lora_saved_module_two", decoder, [lora(saved), lora({"target_modules": ["v_proj"], "r": 3}, "b")], True)
    add(low_level, "lora_saved_module_bare", decoder, lora(saved, style="bare"), True)
    add(loaded, "ia3_saved_module", decoder, ia3({"target_modules": ["up_proj", "down_proj"], "feedforward_modules": ["down_proj"], "modules_to_save": ["self_attn", "norm"]}))
    return made
