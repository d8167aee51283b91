"""Draws one case. Every choice comes from the generator that is passed in."""
import cases

PRIMES = [2, 3, 5, 7, 11, 13, 17]
# of a decoder's layers, which may be saved whole
MODULES = {"self_attn": {"q_proj", "k_proj", "v_proj", "o_proj"}, "mlp": {"gate_proj", "up_proj", "down_proj"}}


class Draw:
    def __init__(self, generator):
        self.r = generator

    def chance(self, p):
        return self.r.random() < p

    def one(self, *choices):
        return self.r.choice(choices)

    def some(self, choices, least=1):
        count = self.r.randint(least, len(choices))
        return self.r.sample(list(choices), count)

    def seed(self):
        return self.r.randrange(1, 1 << 30)

    def sizes(self, *names):
        """Different primes, so that no two dimensions can be mixed up."""
        return dict(zip(names, self.r.sample(PRIMES, len(names))))

    # models ---------------------------------------------------------------------------------------------------

    def mlp(self):
        sizes = {**self.sizes("in", "hidden", "middle", "out"), "bias": self.chance(0.8)}
        sizes["hidden"] += 6  # a LayerNorm over two or three features magnifies rounding
        dtype = self.one("f32", "f32", "f32", "f64", "bf16", "f16")
        one = cases.model("mlp", sizes, self.seed(), dtype, rows=self.r.randint(1, 9))
        if self.chance(0.15):  # more dimensions, features last
            one["input_shape"] = [self.r.randint(1, 3), self.r.randint(1, 4), sizes["in"]]
        return one

    def decoder(self):
        sizes = self.sizes("vocabulary", "inner", "wide")
        sizes["vocabulary"] += 6
        sizes["hidden"] = self.one(29, 31)  # an RMSNorm over two features magnifies rounding, PEFT's own in f32 too
        sizes |= {"layers": self.r.randint(1, 4), "bias": self.chance(0.5)}
        sizes |= {"padding_idx": self.one(None, None, 1), "max_norm": self.one(None, None, None, 1.5)}
        sizes |= {"norm_type": self.one(2.0, 2.0, 1.0)}
        sizes |= {"scale_grad_by_freq": self.chance(0.1), "sparse": self.chance(0.1)}
        dtype = self.one("f32", "f32", "f32", "f64", "bf16")
        # graft then has one matrix for layers over one input; nothing changes for PEFT
        return cases.model("decoder", sizes, self.seed(), dtype, rows=self.r.randint(1, 9), packed=self.chance(0.5))

    def attentive(self):
        sizes = {**self.sizes("in", "out"), "heads": self.r.randint(1, 5), "bias": self.chance(0.7), "causal": self.chance(0.5)}
        sizes["hidden"] = sizes["heads"] * self.one(2, 3, 4, 5)
        one = cases.model("attentive", sizes, self.seed(), self.one("f32", "f32", "f64", "bf16"), rows=self.r.randint(1, 9))
        if one["dtype"] != "bf16" and self.chance(0.4):
            one["input_shape"] = [self.r.randint(1, 3), self.r.randint(1, 7), sizes["in"]]
        return one

    def transposed(self):
        sizes = self.sizes("in", "hidden", "out")
        return cases.model("transposed", sizes, self.seed(), self.one("f32", "f32", "f64"), rows=self.r.randint(1, 9))

    def user(self):
        sizes = {**self.sizes("vocabulary", "hidden", "out"), "bias": self.chance(0.7)}
        return cases.model("user", sizes, self.seed(), self.one("f32", "f32", "f64"), rows=self.r.randint(1, 9))

    def axes(self, n, low, high):
        return [self.r.randint(low, high) for _ in range(n)]

    def conv(self, n, channels_in, channels_out, any_options):
        """`any_options`: dilation, padding mode too, where PEFT's adapter follows the base layer in them."""
        groups = self.one(1, 1, 2)
        one = {"in": channels_in * groups, "out": channels_out * groups, "kernel": self.axes(n, 1, 3), "groups": groups}
        one |= {"stride": self.axes(n, 1, 2), "padding": self.axes(n, 0, 2), "dilation": [1] * n}
        one |= {"padding_mode": "zeros", "bias": self.chance(0.7)}
        if self.chance(0.15):
            one |= {"padding": "same", "stride": [1] * n}
        if any_options:
            one["dilation"] = self.axes(n, 1, 2)
            one["padding_mode"] = self.one("zeros", "zeros", "reflect", "replicate", "circular")
        return one

    def conv_net(self, n, any_options=False, user=False):
        first, second, third = self.r.sample([2, 3, 5, 7], 3)
        one = self.conv(n, first, second, any_options)
        side = {1: 11, 2: 8, 3: 8}[n]  # room for both kernels, whatever stride and dilation
        model_input = [self.r.randint(1, 3), one["in"]] + [self.r.randint(side - 1, side + 2) for _ in range(n)]
        if user:
            return cases.model("user_conv", {"conv": one}, self.seed(), "f32", input_shape=model_input)
        groups = self.one(1, 2) if one["out"] % 2 == 0 and one["groups"] == 1 else 1
        two = {"in": one["out"], "out": third * groups, "kernel": self.axes(n, 1, 2), "groups": groups}
        two |= {"stride": self.axes(n, 1, 2), "padding": self.axes(n, 0, 1), "dilation": [1] * n}
        two |= {"padding_mode": "zeros", "bias": self.chance(0.7)}
        sizes = {"conv1": one, "conv2": two}
        narrow = {1: ["f16"], 2: ["bf16"], 3: []}[n]
        dtype = self.one("f32", "f32", "f64", *narrow)
        return cases.model("conv", sizes, self.seed(), dtype, input_shape=model_input)

    # targets --------------------------------------------------------------------------------------------------

    def mlp_targets(self):
        kind = self.one("list", "list", "regex", "all", "exclude")
        if kind == "list":
            targets = self.some(["fc1", "fc2", "head"])
            left = [n for n in ("fc1", "fc2", "head") if n not in targets]
            return {"target_modules": targets}, left
        if kind == "regex":
            return {"target_modules": self.one("fc[12]", "(fc1|head)", "f.*", r"(?:.*\.)?fc\d")}, []
        if kind == "all":
            return {"target_modules": "all-linear"}, ["head"]
        return {"target_modules": ["fc1", "fc2", "head"], "exclude_modules": self.one(["fc2"], "fc[23]", ["head"])}, []

    def decoder_targets(self, sizes, embedding):
        leaves = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        last = sizes["layers"] - 1
        kind = self.one("list", "list", "path", "regex", "all", "layers", "exclude", "whole")
        if kind == "list":
            targets = self.some(leaves + ["lm_head"] + (["embed_tokens"] if embedding else []))
            return {"target_modules": targets}, [n for n in ("lm_head", "embed_tokens") if n not in targets]
        if kind == "whole":
            saved = self.one(*MODULES)
            targets = self.some([n for n in leaves if n not in MODULES[saved]])
            return {"target_modules": targets, "modules_to_save": [self.one(saved, f"layers.{last}.{saved}")]}, []
        if kind == "path":
            targets = self.some([f"model.layers.{last}.self_attn.q_proj", "mlp.up_proj", "layers.0.mlp.gate_proj", "v_proj"])
            return {"target_modules": targets}, ["lm_head", "embed_tokens"]
        if kind == "regex":
            patterns = [r".*\.(q|v)_proj", r"model\.layers\.\d+\.mlp\..*", r".*layers\.[02]\..*_proj", r"(?!lm_head).*_proj",
                        r"(?P<layer>.*)\.(q|v)_proj", r"(?i).*\.[QK]_PROJ", r".*(?<=self_attn\.)[qk]_proj", r".*(?<!self_attn)\.(up|o)_proj",
                        r"(?x) .* \. (?# of all layers) (up|down) _proj  # and no more", r"\A.*\.o_proj\Z", r".*\.[]qv]{1}_proj"]
            return {"target_modules": self.one(*patterns)}, ["lm_head", "embed_tokens"]
        if kind == "all":
            return {"target_modules": "all-linear"}, ["lm_head", "embed_tokens"]
        targets = {"target_modules": self.some(leaves, 2)}
        if kind == "layers":
            layers = self.some(range(sizes["layers"]))
            targets["layers_to_transform"] = layers[0] if len(layers) == 1 and self.chance(0.5) else layers
            if self.chance(0.5):
                targets["layers_pattern"] = self.one("layers", ["layers"], ["blocks", "layers"])
            return targets, ["lm_head", "embed_tokens"]
        first = targets["target_modules"][0]
        targets["exclude_modules"] = self.one([first], [f"layers.{last}.mlp.up_proj", first], rf".*\.{first}")
        return targets, ["lm_head", "embed_tokens"]

    def attentive_targets(self):
        """Without all-linear, which means the output projections by themselves: PEFT leaves such adapters out."""
        names = ["self_attn", "cross_attn", "fc", "memory", "head"]
        if self.chance(0.3):
            return {"target_modules": self.one(r"(self|cross)_attn", r".*_attn", "(fc|self_attn)")}, ["head", "memory"]
        targets = self.some(names)
        return {"target_modules": targets}, [n for n in ("cross_attn", "self_attn", "head") if n not in targets]

    def conv_targets(self, method, sizes):
        """Where PEFT's adapter follows the base layer: LoRA's has neither dilation nor padding mode, AdaLoRA's no groups."""
        plain = [n for n, s in sizes.items() if s["padding_mode"] == "zeros" and set(s["dilation"]) == {1}]
        ungrouped = [n for n, s in sizes.items() if s["groups"] == 1]
        return {"lora": plain, "adalora": ungrouped, "ia3": list(sizes)}[method]

    # methods --------------------------------------------------------------------------------------------------

    def aux(self, config, left, many):
        """Trained biases and whole modules. `many`: another adapter is on the model, which rules biases out."""
        if left and self.chance(0.25):
            config["modules_to_save"] = [self.one(*left)]
        if not many and "bias" in config:
            config["bias"] = self.one("none", "none", "all", "lora_only")
        return config

    def tokens(self, config, vocabulary):
        """Trained rows of the embedding, of the head too where nothing else is there."""
        config["modules_to_save"] = [n for n in config.get("modules_to_save", []) if n != "embed_tokens"] or None
        some = self.r.sample(range(vocabulary), self.r.randint(1, vocabulary))
        takes_head = "lm_head" in (config["modules_to_save"] or []) or "lm_head" in config["target_modules"]
        if config["target_modules"] == "all-linear" or takes_head or self.chance(0.6):
            config["trainable_token_indices"] = self.one(some, {"embed_tokens": some}, {"model.embed_tokens": some})
        else:
            config["trainable_token_indices"] = {"embed_tokens": some, "lm_head": self.r.sample(range(vocabulary), 2)}

    def patterns(self, leaves, even):
        """Disjoint keys, so that the order in which PEFT sorts them on saving does not matter. `even`: the ranks."""
        ranks, alphas = {}, {}
        for leaf in self.some(leaves):
            key = self.one(leaf, leaf, f".*{leaf}", f"^.*{leaf}$" if self.chance(0.2) else leaf)
            if self.chance(0.7):
                ranks[key] = 2 * self.r.randint(1, 3) if even else self.r.randint(1, 6)
            if self.chance(0.7):
                alphas[key] = self.one(1, 2.5, 7, 11)
        return ranks, alphas

    def lora(self, targets, leaves, embedding=False, even=False):
        rank = 2 * self.r.randint(1, 3) if even else self.r.randint(1, 9)
        config = {"r": rank, "lora_alpha": self.one(*[a for a in (1, 3, 5, 7.5, 16, -2) if a != rank and a * a != rank])}
        config |= {"use_rslora": self.chance(0.3), "lora_dropout": self.one(0.0, 0.0, 0.1, 0.5), "bias": "none"}
        config |= {"init_lora_weights": self.one(True, True, False, "gaussian")} | targets
        if not embedding and config["init_lora_weights"] != "gaussian" and self.chance(0.25):
            config["lora_bias"] = True
        if leaves and self.chance(0.35):
            config["rank_pattern"], config["alpha_pattern"] = self.patterns(leaves, even)
        return config

    def adalora(self, targets):
        rank = self.r.randint(2, 7)
        config = {"init_r": rank, "target_r": self.r.randint(1, rank), "lora_alpha": self.one(3, 16, 32.5, 0, -1)}
        config |= {"lora_dropout": self.one(0.0, 0.1), "bias": "none", "total_step": 100, "tinit": 10, "tfinal": 20}
        config |= {"deltaT": 2, "init_lora_weights": self.one(True, False)}
        return config | targets

    def ia3(self, targets, leaves):
        config = {k: v for k, v in targets.items() if k in ("target_modules", "exclude_modules")}
        if isinstance(config["target_modules"], list):
            config["feedforward_modules"] = self.some(config["target_modules"], 0)
        else:
            config["feedforward_modules"] = self.one([], rf".*{leaves[0]}")
        return config

    # cases ----------------------------------------------------------------------------------------------------

    def style(self, category, name, model, method, config, many_config=None):
        """One of the ways in which an adapter can travel."""
        seed = self.seed()
        narrow = model["dtype"] in ("bf16", "f16")
        ways = ["loaded", "loaded", "loaded", "bare", "fresh", "fresh"]
        ways += ["several", "several"] if many_config else []
        ways += ["keys"] if config.get("bias", "none") == "none" and not config.get("modules_to_save") else []
        way = self.one(*ways)
        options = {"low_cpu_mem_usage": self.chance(0.7), "mapped": self.chance(0.3)}
        name_of = self.one("default", "default", "alice", "style_7")
        category = f"{category}/{way}"
        if way == "loaded":
            kind = self.one(None, None, None, "bf16", "f16", "f64")
            pruned = method == "ADALORA" and self.chance(0.6)
            one = cases.adapter(method, config, seed, name_of, file_dtype=kind, pruned=pruned)
            return cases.loaded(category, name, model, one, **options)
        if way == "several":
            all_configs = [config] + [many_config() for _ in range(self.one(1, 1, 2))]
            for c in all_configs:
                if "bias" in c:
                    c["bias"] = "none"
            if method == "IA3":  # in PEFT the first adapter decides for all which layers are feed-forward
                all_configs = [dict(config) for _ in all_configs]
            for c in all_configs[1:]:
                c.pop("modules_to_save", None)
            saved = set().union(*(MODULES.get(n.split(".")[-1], {n}) for n in all_configs[0].get("modules_to_save", [])))
            targets = [c["target_modules"] for c in all_configs]
            if any(not isinstance(t, list) or saved & set(t) for t in targets):
                all_configs[0].pop("modules_to_save", None)
            names = ["default", "alice", "bob"]
            pruned = method == "ADALORA" and self.chance(0.5)
            adapters = [cases.adapter(method, c, seed + i, n, pruned=pruned) for i, (c, n) in enumerate(zip(all_configs, names))]
            scale = self.one(None, 0.3, -1.5) if method == "LORA" else None
            return cases.several(category, name, model, adapters, self.chance(0.5), scale, **options)
        one = cases.adapter(method, config, seed, name_of, style="bare")
        low = options["low_cpu_mem_usage"]
        if way == "fresh":
            return cases.fresh(category, name, model, one, self.one("struct", "file"), low, bare=self.chance(0.5))
        if way == "keys" and not narrow:
            targets = None if method == "IA3" else self.one(None, [], ["fc1", "q_proj", "conv1"])
            return cases.low_level(category, name, model, one, low, True, targets=targets)
        return cases.low_level(category, name, model, one, low, False, self.one("struct", "file"), bare=True)

    def case(self, name):
        category = self.one(*CATEGORIES)
        method, kind = category.split("/")
        if method == "mixed":
            return self.mixed(category, name, kind)
        if method == "parameters":
            return self.parameters(category, name)
        many = self.chance(0.3)

        def configured():
            leaves, left, embedding = [], [], False
            if kind == "mlp":
                targets, left = self.mlp_targets()
                leaves = ["fc1", "fc2", "head"]
            elif kind in ("decoder", "embedding"):
                embedding = kind == "embedding"
                targets, left = self.decoder_targets(model["sizes"], embedding and method == "lora")
                if embedding:
                    targets = {"target_modules": ["embed_tokens"] + self.some(["q_proj", "up_proj", "lm_head"], 0)}
                    left = [n for n in ["lm_head"] if n not in targets["target_modules"]]
                leaves = ["q_proj", "v_proj", "up_proj"] + (["embed_tokens"] if embedding else [])
                embedding = embedding or "embed_tokens" in targets["target_modules"]
            elif kind == "attentive":
                targets, left = self.attentive_targets()
                leaves = ["self_attn", "cross_attn", "fc"]
            elif kind == "transposed":
                targets, leaves = {"target_modules": self.some(["c_fc", "c_proj"])}, ["c_fc", "c_proj"]
                left = [n for n in leaves if n not in targets["target_modules"]]
            elif kind == "user":
                embedding = method == "lora" and self.chance(0.7)
                targets = {"target_modules": (["table"] if embedding else []) + (["project"] if self.chance(0.7) or not embedding else [])}
                leaves = ["project"]
                left = [n for n in ("table", "project") if n not in targets["target_modules"]]
            else:
                leaves = list(model["sizes"])
                names = self.some(self.conv_targets(method, model["sizes"]))
                left = [n for n in leaves if n not in names]
                targets = {"target_modules": names}
            if method == "lora":
                config = self.lora(targets, leaves, embedding, even="conv" in kind)
                if kind == "attentive":
                    config.pop("lora_bias", None)  # PEFT makes one and leaves it out of the forward, and graft refuses
                # a lookup with max_norm changes the weight whose norms DoRA takes, in torch
                shapes = [s for s in model["sizes"].values() if isinstance(s, dict)]
                grouped = any(s["groups"] > 1 for s in shapes)
                if not (config.get("lora_bias") or kind == "attentive" or grouped or model["sizes"].get("max_norm")) and self.chance(0.25):
                    config["use_dora"] = True
            elif method == "adalora":
                config = self.adalora(targets)
            else:
                config = self.ia3(targets, leaves)
            if self.chance(0.5 if kind == "transposed" else 0.05) and kind != "attentive":  # only a transposed layer can have it
                config["fan_in_fan_out"] = True
            config = self.aux(config, left, many)
            if method == "lora" and kind == "decoder" and not (many or embedding) and self.chance(0.3):
                self.tokens(config, model["sizes"]["vocabulary"])
            return config

        if kind.startswith("conv"):
            model = self.conv_net(int(kind[-1]), any_options=method != "lora" or self.chance(0.3))
        elif kind == "user_conv":
            model = self.conv_net(2, any_options=method != "lora", user=True)
        else:
            model = {"mlp": self.mlp, "attentive": self.attentive, "decoder": self.decoder, "embedding": self.decoder, "transposed": self.transposed, "user": self.user}[kind]()
        return self.style(category, name, model, method.upper(), configured(), configured if many else None)


    def parameters(self, category, name):
        """Bare matrices and stacks of experts' weights, beside modules. All adapters take the same ones: PEFT's rule."""
        if self.chance(0.2):
            model = self.attentive()
            own = self.some(["self_attn.in_proj_weight", "cross_attn.in_proj_weight"])
            layers = self.some(["fc", "head"], 0)
        else:
            sizes = {**self.sizes("in", "hidden", "inner", "out"), "transposed": self.chance(0.5)}
            sizes["experts"] = self.r.randint(2 if sizes["transposed"] else 1, 5)  # PEFT fails at one that is transposed
            model = cases.model("experts", sizes, self.seed(), self.one("f32", "f32", "f64"), rows=self.r.randint(1, 9))
            own = self.some(["mixer.weight", "tail", "gate_up_proj", "experts.down_proj"])
            layers = self.some(["fc", "head"], 0)
            matrices = self.some([n for n in ("fc", "head") if n not in layers], 0) if self.chance(0.3) and len(layers) < 2 else []
            own += [n + ".weight" for n in matrices]

        def configured():
            targets = {"target_parameters": own, "target_modules": layers or self.one(None, [])}
            config = self.lora(targets, [n.rpartition(".")[2] for n in own if not n.endswith("weight")])
            return config | {"lora_dropout": 0.0, "lora_bias": False}

        way = self.one("loaded", "loaded", "bare", "fresh", "several")
        category = f"{category}/{way}"
        one = cases.adapter("LORA", configured(), self.seed(), self.one("default", "alice"), "pretrained" if way == "loaded" else "bare")
        low = self.chance(0.7)
        if way == "loaded":
            return cases.loaded(category, name, model, one, low_cpu_mem_usage=low, mapped=self.chance(0.3))
        if way == "several":
            adapters = [cases.adapter("LORA", configured(), self.seed(), n) for n in ("default", "alice")]
            return cases.several(category, name, model, adapters, self.chance(0.5), self.one(None, -1.5), low_cpu_mem_usage=low)
        if way == "fresh":
            return cases.fresh(category, name, model, one, self.one("struct", "file"), low, bare=self.chance(0.5))
        return cases.low_level(category, name, model, one, low, False, self.one("struct", "file"), bare=True)

    def mixed(self, category, name, kind):
        """Two or three methods, the sites shared out among them."""
        model = self.decoder() if kind == "decoder" else self.mlp()
        sites = ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"] if kind == "decoder" else ["fc1", "fc2", "head"]
        self.r.shuffle(sites)
        methods = sorted(self.some(["lora", "adalora", "ia3"], 2))  # PEFT wants AdaLoRA first
        adapters = []
        for i, method in enumerate(methods):
            targets = {"target_modules": sites[i :: len(methods)]}
            config = self.adalora(targets) if method == "adalora" else getattr(self, method)(targets, targets["target_modules"])
            adapters.append(cases.adapter(method.upper(), config, self.seed(), f"the_{method}", style="bare"))
        return cases.mixed(category, name, model, adapters, self.chance(0.5))


CATEGORIES = (
    ["lora/mlp"] * 6
    + ["lora/decoder"] * 6
    + ["lora/embedding"] * 3
    + ["lora/attentive"] * 3
    + ["lora/transposed"] * 2
    + ["lora/conv1", "lora/conv2", "lora/conv2", "lora/conv3"]
    + ["lora/user", "lora/user", "lora/user_conv"]
    + ["adalora/mlp"] * 3
    + ["adalora/decoder"] * 2
    + ["adalora/transposed", "adalora/conv2", "adalora/conv2", "adalora/user"]
    + ["ia3/mlp"] * 3
    + ["ia3/decoder"] * 3
    + ["ia3/transposed", "ia3/conv2", "ia3/conv2", "ia3/conv3", "ia3/user", "ia3/user_conv"]
    + ["parameters/experts"] * 4
    + ["mixed/mlp", "mixed/mlp", "mixed/decoder", "mixed/decoder"]
)
