"""Random PEFT adapters as PEFT defines them: what one makes of a model's weights, and how the gradients of its tensors
follow from those of the merged weights. Nothing here knows the program."""

import json
import math
import os
import re

import numpy as np

MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TABLE, HEAD = "model.embed_tokens", "lm_head"


def ends(module, names):
    return any(module == n or module.endswith("." + n) for n in names)


def draw_config(rng, c):
    names = rng.sample(MODULES, rng.randrange(1, 8))
    tied = c.get("tie_word_embeddings", False)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": None,
        "bias": "none",
        "r": rng.choice([1, 4, 7, 16]),
        "lora_alpha": rng.choice([1, 2, 6.5, 8]),
        "lora_dropout": rng.choice([0.0, 0.1]),
        "target_modules": names,
        "use_rslora": rng.random() < 0.4,
        "use_dora": rng.random() < 0.4,
        "rank_pattern": {},
        "alpha_pattern": {},
        "fan_in_fan_out": rng.random() < 0.2,
        "init_lora_weights": rng.choice([True, False, "gaussian", "eva", "orthogonal"]),
    }
    names += [n for n in ("embed_tokens", "lm_head") if rng.random() < 0.35]
    whole = [n for n in ("embed_tokens", "lm_head", "v_proj", "mlp") if rng.random() < 0.15]
    if whole:
        config["modules_to_save"] = whole
    if rng.random() < 0.2 and "embed_tokens" not in names + whole:
        some = sorted(rng.sample(range(c["vocab_size"]), 5))
        config["trainable_token_indices"] = rng.choice([some, {"embed_tokens": some}])
    config["ensure_weight_tying"] = tied and rng.random() < 0.4 and not config["use_dora"] and "lm_head" not in names + whole
    if rng.random() < 0.4:
        config["rank_pattern"] = {names[0]: 3, "layers.0.self_attn.v_proj": 5}
    elif rng.random() < 0.3:
        config["rank_pattern"] = {r"^model\.layers\.0\..*": 2, r".*\.(q|down)_proj": 6}
    if rng.random() < 0.4:
        config["alpha_pattern"] = {names[-1]: 6}
    elif rng.random() < 0.3:
        config["alpha_pattern"] = {r"layers\.\d+\.mlp\.\w+": 3}
    if rng.random() < 0.3:
        config["layers_to_transform"] = rng.choice([rng.randrange(c["num_hidden_layers"]), [0], [0, 1]])
        if rng.random() < 0.5:
            config["layers_pattern"] = rng.choice(["layers", ["blocks", "layers"], "blocks"])
    if rng.random() < 0.3:
        module = f"layers.0.{'self_attn' if names[0][0] in 'qkvo' else 'mlp'}.{names[0]}"
        config["exclude_modules"] = rng.choice([["model." + module], [module], r".*layers\.0\..*", r"model\." + re.escape(module)])
    elif rng.random() < 0.2 and "layers_to_transform" not in config:
        config["target_modules"] = rng.choice([r".*(self_attn|mlp)\.(" + "|".join(names) + ")", r".*\.[qv]_proj", r"model\.embed_tokens"])
    if rng.random() < 0.1 and "layers_to_transform" not in config:
        config["target_modules"] = "all-linear"
    if not config["use_dora"] and "embed_tokens" not in str(config["target_modules"]) and rng.random() < 0.3:
        config["lora_bias"] = True  # PEFT has it for Linears without DoRA
    return config


class Adapter:
    """config and tensors (by their names in the file) of a random adapter for the weights w of config c"""

    def __init__(self, rng, draw, c, w):
        self.config, self.w, self.tied = draw_config(rng, c), w, c.get("tie_word_embeddings", False)
        config = self.config
        modules = [key[: -len(".weight")] for key in w if w[key].ndim == 2 and key.endswith(".weight")]
        if self.tied:
            modules.append(HEAD)
        self.base = dict(w, **{HEAD + ".weight": w[TABLE + ".weight"]}) if self.tied else w
        self.tensors, self.kinds = {}, {}

        def normal(*shape):
            return (0.2 * draw.standard_normal(shape)).astype("float32")

        for module in modules:
            rows, columns = self.base[module + ".weight"].shape
            at, r = f"base_model.model.{module}.", self.chosen("rank_pattern", module, config["r"])
            if self.is_whole(module):
                self.kinds[module] = "whole"
                self.tensors[at + "weight"] = normal(rows, columns)
                if module + ".bias" in w:
                    self.tensors[at + "bias"] = normal(rows)
            elif self.is_target(module) and module == TABLE:
                self.kinds[module] = "table"
                self.tensors[at + "lora_embedding_A"], self.tensors[at + "lora_embedding_B"] = normal(r, rows), normal(columns, r)
                if config["use_dora"]:
                    self.tensors[at + "lora_magnitude_vector"] = draw.uniform(0.5, 2, columns).astype("float32")
            elif self.is_target(module):
                self.kinds[module] = "linear"
                self.tensors[at + "lora_A.weight"], self.tensors[at + "lora_B.weight"] = normal(r, columns), normal(rows, r)
                if config["use_dora"]:
                    self.tensors[at + "lora_magnitude_vector"] = draw.uniform(0.5, 2, rows).astype("float32")
                if config.get("lora_bias"):
                    self.tensors[at + "lora_B.bias"] = normal(rows)
            if module in (TABLE, HEAD) and self.kinds.get(module) in ("table", "linear") and rng.random() < 0.5:
                self.tensors[at + "base_layer.weight"] = self.base[module + ".weight"].astype("float32")
        if self.kinds.get(TABLE) or self.is_target(TABLE):
            config.pop("trainable_token_indices", None)
        tokens = config.get("trainable_token_indices")
        self.tokens = tokens["embed_tokens"] if isinstance(tokens, dict) else tokens
        if self.tokens:
            self.kinds[TABLE] = "tokens"
            width = w[TABLE + ".weight"].shape[1]
            self.tensors[f"base_model.model.{TABLE}.token_adapter.trainable_tokens_delta"] = normal(len(self.tokens), width)
        # a tied head goes with the table when asked for, and always with trained tokens
        self.follows = self.tied and HEAD not in self.kinds and TABLE in self.kinds and bool(self.tokens or config["ensure_weight_tying"])

    def chosen(self, pattern, module, default):
        for key, value in self.config[pattern].items():
            if re.match(rf"(.*\.)?({key})$", module):
                return value
        return default

    def is_whole(self, module):
        return any(re.match(rf"(^|.*\.){m}($|\..*)", module) for m in self.config.get("modules_to_save", []))

    def is_target(self, module):
        config = self.config
        targets, excluded = config["target_modules"], config.get("exclude_modules", [])
        if re.fullmatch(excluded, module) if isinstance(excluded, str) else ends(module, excluded):
            return False
        if self.is_whole(module):
            return False
        if targets == "all-linear":
            return module not in (TABLE, HEAD)
        if isinstance(targets, str):
            return bool(re.fullmatch(targets, module))
        if module in targets or not ends(module, targets) or "layers_to_transform" not in config:
            return ends(module, targets)
        patterns = config.get("layers_pattern") or ["[^.]*"]
        for pattern in [patterns] if isinstance(patterns, str) else patterns:
            found = re.match(rf".*?\.{pattern}\.(\d+)\.", module)
            if found:
                layers = config["layers_to_transform"]
                return int(found[1]) in (layers if isinstance(layers, list) else [layers])
        return False

    def write(self, folder, write_safetensors):
        os.makedirs(folder)
        with open(f"{folder}/adapter_config.json", "w") as f:
            json.dump(self.config, f)
        write_safetensors(f"{folder}/adapter_model.safetensors", self.tensors)

    def rank_of(self, tensor):
        return self.chosen("rank_pattern", tensor[: -len(".weight")], self.config["r"])

    def factors(self, module, dtype):
        """names of A and B, both, and the scale: [out, in] += scale B A, for the table transposed"""
        at = f"base_model.model.{module}."
        names = [at + n for n in (["lora_embedding_A", "lora_embedding_B"] if self.kinds[module] == "table" else ["lora_A.weight", "lora_B.weight"])]
        r = self.chosen("rank_pattern", module, self.config["r"])
        scale = self.chosen("alpha_pattern", module, self.config["lora_alpha"]) / (math.sqrt(r) if self.config["use_rslora"] else r)
        return names, *(self.tensors[n].astype(dtype) for n in names), dtype(scale)

    def sum_of(self, module, dtype, part=lambda x: x):
        """base weight plus update, before DoRA's magnitudes; `part` sees each summand's factors"""
        _, a, b, scale = self.factors(module, dtype)
        update = part(b) @ part(a)
        return part(self.base[module + ".weight"].astype(dtype)) + scale * (update.T if self.kinds[module] == "table" else update)

    def ratio(self, module, full):
        """DoRA: magnitude over norm, of a table's columns or a Linear's rows"""
        axis, m = (0 if self.kinds[module] == "table" else 1), self.tensors[f"base_model.model.{module}.lora_magnitude_vector"]
        over = m.astype(full.dtype) / np.linalg.norm(full, axis=axis)
        return over if axis == 0 else over[:, None]

    def merged(self):
        """all weights with the adapter in them, in float64. A head of its own only where it differs from a tied table"""
        out = dict(self.w)
        for module, kind in self.kinds.items():
            key, at = module + ".weight", f"base_model.model.{module}."
            if kind == "whole":
                for part in [p for p in ("weight", "bias") if at + p in self.tensors]:
                    out[f"{module}.{part}"] = self.tensors[at + part].astype("float64")
            elif kind == "tokens":
                out[key] = out[key].copy()
                out[key][self.tokens] = self.tensors[at + "token_adapter.trainable_tokens_delta"]
            else:
                out[key] = self.sum_of(module, np.float64)
                if self.config["use_dora"]:
                    out[key] = out[key] * self.ratio(module, out[key])
                if at + "lora_B.bias" in self.tensors:
                    bias = self.factors(module, np.float64)[3] * self.tensors[at + "lora_B.bias"]
                    out[module + ".bias"] = out.get(module + ".bias", 0) + bias
        if self.tied and not self.follows and HEAD + ".weight" not in out and TABLE in self.kinds:
            out[HEAD + ".weight"] = self.w[TABLE + ".weight"]
        return out

    def magnitudes(self):
        """for every merged weight that is a sum: the sum of the absolute values of the summands, entry by entry"""
        out = {}
        for module, kind in self.kinds.items():
            if kind in ("table", "linear"):
                out[module + ".weight"] = self.sum_of(module, np.float64, np.abs)
                if self.config["use_dora"]:
                    out[module + ".weight"] *= np.abs(self.ratio(module, self.sum_of(module, np.float64)))
        return out

    def has_new_biases(self):
        """a Linear without a bias gets one: PEFT refuses to merge that"""
        return any(module + ".bias" not in self.w for module, kind in self.kinds.items() if kind == "linear" and self.config.get("lora_bias"))

    def gradients(self, grads):
        """of the adapter's tensors, from those of the merged weights"""
        out = {}
        for module, kind in self.kinds.items():
            at, d = f"base_model.model.{module}.", grads[module + ".weight"]
            if kind == "whole":
                for part in [p for p in ("weight", "bias") if at + p in self.tensors]:
                    out[at + part] = grads[f"{module}.{part}"]
                continue
            if kind == "tokens":
                out[at + "token_adapter.trainable_tokens_delta"] = d[self.tokens]
                continue
            names, a, b, scale = self.factors(module, d.dtype.type)
            if self.config["use_dora"]:  # its norms count as constants
                full = self.sum_of(module, d.dtype.type)
                axis = 0 if kind == "table" else 1
                out[at + "lora_magnitude_vector"] = (d * full).sum(axis) / np.linalg.norm(full, axis=axis)
                d = d * self.ratio(module, full)
            if at + "lora_B.bias" in self.tensors:
                out[at + "lora_B.bias"] = scale * grads[module + ".bias"]
            if kind == "table":
                d = d.T
            out[names[0]], out[names[1]] = scale * (b.T @ d), scale * (d @ a.T)
        return out
