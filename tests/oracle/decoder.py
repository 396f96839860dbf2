"""A decoder in NumPy, in float64, beside the program: random shapes of the four families, random weights written by
`pmetal init`, right and left padding, windows, rope scalings, biases, tied and untied heads.

usage: decoder.py PMETAL SCRATCH [CASES [SEED]]
Compares `pmetal probe` in f32: logits and hidden states within 1e-4 of the largest entry, the loss within 1e-5, three
gradients with central differences along a random direction, logits with a random PEFT adapter (of Linears, of the token
table and a tied or untied head; low-rank, whole, single tokens) beside the weights and fused into them, gradients of its
tensors, and the greedy continuation. PMETAL_TEST_DEVICE names
another device than the CPU. Prints what differs and exits with 1.
"""

import json
import math
import os
import random
import re
import shutil
import struct
import subprocess
import sys

import numpy as np

DEVICE = os.environ.get("PMETAL_TEST_DEVICE", "cpu")
TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4"}


def read_safetensors(path):
    with open(path, "rb") as f:
        raw = f.read()
    (size,) = struct.unpack("<Q", raw[:8])
    header, data = json.loads(raw[8 : 8 + size]), raw[8 + size :]
    out = {}
    for name, t in header.items():
        if name == "__metadata__":
            continue
        begin, end = t["data_offsets"]
        if t["dtype"] == "BF16":
            words = np.frombuffer(data[begin:end], "<u2").astype("<u4") << 16
            a = words.view("<f4")
        else:
            a = np.frombuffer(data[begin:end], TYPES[t["dtype"]])
        out[name] = a.reshape(t["shape"])
    return out


def write_safetensors(path, tensors):
    header, blobs, at = {}, [], 0
    for name, a in tensors.items():
        blob = np.ascontiguousarray(a).tobytes()
        dtype = {"int64": "I64", "int32": "I32", "float32": "F32"}[str(a.dtype)]
        header[name] = {"dtype": dtype, "shape": list(a.shape), "data_offsets": [at, at + len(blob)]}
        at += len(blob)
        blobs.append(blob)
    text = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def round_to(dtype, a):
    """values of a narrower type, in float32"""
    if dtype == "F16":
        return a.astype("<f2").astype("float32")
    if dtype == "BF16":  # to nearest, ties to even
        bits = a.astype("<f4").view("<u4")
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype("<u4").view("<f4")
    return a.astype("float32")


def write_model(folder, tensors, dtype, shards):
    """the checkpoint in a type and a number of files of our choice"""

    def blob(a):
        if dtype == "BF16":
            return (a.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
        return a.astype(TYPES[dtype]).tobytes()

    names, index = list(tensors), {}
    for n in range(shards):
        file = "model.safetensors" if shards == 1 else f"model-{n + 1:05}-of-{shards:05}.safetensors"
        header, blobs, at = {"__metadata__": {"format": "pt"}}, [], 0
        for name in names[n::shards]:
            blobs.append(blob(tensors[name]))
            header[name] = {"dtype": dtype, "shape": list(tensors[name].shape), "data_offsets": [at, at + len(blobs[-1])]}
            at += len(blobs[-1])
            index[name] = file
        text = json.dumps(header).encode()
        with open(f"{folder}/{file}", "wb") as f:
            f.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))
    if shards > 1:
        os.remove(f"{folder}/model.safetensors")
        with open(f"{folder}/model.safetensors.index.json", "w") as f:
            json.dump({"metadata": {"total_size": 1}, "weight_map": index}, f)


def draw_config(rng):
    family = rng.choice(["llama", "mistral", "qwen2", "qwen3"])
    kv = rng.choice([1, 2, 3])
    heads = kv * rng.choice([1, 2, 3, 4])
    head_dim = rng.choice([4, 8, 12, 16, 20, 32, 80, 96, 256])
    if heads * head_dim > 1024:
        kv, heads = 1, rng.choice([1, 2, 4])
    c = {
        "architectures": [{"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}[family] + "ForCausalLM"],
        "model_type": family,
        "hidden_size": heads * head_dim,
        "num_hidden_layers": rng.choice([1, 2, 3]),
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "intermediate_size": rng.choice([17, 48, 96, 130]),
        "vocab_size": rng.choice([33, 100, 257]),
        "rms_norm_eps": rng.choice([1e-6, 1e-5]),
        "hidden_act": rng.choice(["silu", "silu", "silu", "gelu", "gelu_pytorch_tanh", "relu"]),
        "tie_word_embeddings": rng.choice([True, False]),
        "max_position_embeddings": rng.choice([32, 64, 4096]),
        "initializer_range": 0.15,
        "bos_token_id": 1,
        "eos_token_id": None,
    }
    if family == "qwen3" or (family != "qwen2" and rng.random() < 0.7):  # widths of their own
        c["head_dim"] = head_dim
        c["hidden_size"] = rng.choice([24, 33, 40, 50, 64, 72])
    rope = {"rope_theta": rng.choice([10000.0, 500000.0, 1e6])}
    kind = rng.choice(["default", "default", "linear", "dynamic", "yarn", "llama3", "longrope"])
    dim = head_dim
    scaling = {"rope_type": kind}
    if kind in ("linear", "dynamic"):
        scaling["factor"] = rng.choice([2.0, 4.0])
    elif kind == "yarn":
        scaling.update(factor=rng.choice([4.0, 16.0]), original_max_position_embeddings=rng.choice([16, 32]))
        if rng.random() < 0.4:
            scaling.update(beta_fast=16.0, beta_slow=2.0)
        if rng.random() < 0.3:
            scaling.update(attention_factor=1.3)
    elif kind == "llama3":
        scaling.update(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=rng.choice([16, 64]))
    elif kind == "longrope":
        scaling.update(factor=4.0, original_max_position_embeddings=16)
        for name in ("short_factor", "long_factor"):
            scaling[name] = [round(rng.uniform(1, 4), 3) for _ in range(dim // 2)]
    if rng.random() < 0.5:  # the newer spelling
        c["rope_parameters"] = {**scaling, **rope}
    else:
        c.update(rope)
        if kind != "default":
            c["rope_scaling"] = scaling
    if family == "llama":
        c["attention_bias"], c["mlp_bias"] = rng.random() < 0.4, rng.random() < 0.4
    if family == "qwen3":
        c["attention_bias"] = rng.random() < 0.4
    if family == "mistral":
        c["sliding_window"] = rng.choice([None, 3, 8, 4096])
    if family in ("qwen2", "qwen3") and rng.random() < 0.6:
        c["use_sliding_window"], c["sliding_window"] = True, rng.choice([3, 8])
        if rng.random() < 0.5:
            c["layer_types"] = [rng.choice(["full_attention", "sliding_attention"]) for _ in range(c["num_hidden_layers"])]
        else:
            c["max_window_layers"] = rng.choice([0, 1, 2])
    return c


def windows(c):
    n, family = c["num_hidden_layers"], c["model_type"]
    if family == "mistral":
        return [c["sliding_window"] or 0] * n
    if family in ("qwen2", "qwen3") and c.get("use_sliding_window"):
        if "layer_types" in c:
            return [c["sliding_window"] if t == "sliding_attention" else 0 for t in c["layer_types"]]
        return [c["sliding_window"] if i >= c.get("max_window_layers", 28) else 0 for i in range(n)]
    return [0] * n


def rope_frequencies(c, dim, length):
    """inverse frequencies [dim/2] and the factor on cos and sin; `length`: largest position + 1"""
    p = dict(c.get("rope_parameters") or c.get("rope_scaling") or {})
    theta = p.get("rope_theta", c.get("rope_theta", 10000.0))
    kind, longest = p.get("rope_type", "default"), c["max_position_embeddings"]
    i = np.arange(0, dim, 2) / dim
    inverse = theta**-i
    if kind == "linear":
        return inverse / p["factor"], 1.0
    if kind == "dynamic":
        seen = max(length, longest)
        base = theta * (p["factor"] * seen / longest - (p["factor"] - 1)) ** (dim / (dim - 2))
        return base**-i, 1.0
    if kind == "llama3":
        old, low, high = p["original_max_position_embeddings"], p["low_freq_factor"], p["high_freq_factor"]
        wave = 2 * math.pi / inverse
        smooth = (old / wave - low) / (high - low)
        mixed = (1 - smooth) * inverse / p["factor"] + smooth * inverse
        return np.where(wave > old / low, inverse / p["factor"], np.where(wave < old / high, inverse, mixed)), 1.0
    if kind == "yarn":
        old, factor = p["original_max_position_embeddings"], p["factor"]

        def turn(rotations):
            return dim * math.log(old / (rotations * 2 * math.pi)) / (2 * math.log(theta))

        low = max(math.floor(turn(p.get("beta_fast", 32))), 0)
        high = min(math.ceil(turn(p.get("beta_slow", 1))), dim - 1)
        ramp = np.clip((np.arange(dim // 2) - low) / ((high - low) or 0.001), 0, 1)
        scale = p.get("attention_factor") or 0.1 * math.log(factor) + 1
        return inverse / factor * ramp + inverse * (1 - ramp), scale
    if kind == "longrope":
        old = p["original_max_position_embeddings"]
        factors = np.array(p["long_factor" if length > old else "short_factor"])
        factor = p["factor"]
        scale = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(old))
        return inverse / factors, scale
    return inverse, 1.0


def activation(kind, x):
    if kind == "silu":
        return x / (1 + np.exp(-x))
    if kind == "relu":
        return np.maximum(x, 0)
    if kind == "gelu":
        return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def norm(x, weight, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def forward(c, w, ids, positions, length):
    """one sequence: logits [T, V] and what enters layer 0 and leaves each layer"""
    heads, kv = c["num_attention_heads"], c["num_key_value_heads"]
    dim = c.get("head_dim") or c["hidden_size"] // heads
    eps = c["rms_norm_eps"]
    inverse, scale = rope_frequencies(c, dim, length)
    angle = positions[:, None] * inverse[None]
    cos = np.concatenate([np.cos(angle)] * 2, -1)[:, None] * scale
    sin = np.concatenate([np.sin(angle)] * 2, -1)[:, None] * scale

    def turn(x):
        half = np.concatenate([-x[..., dim // 2 :], x[..., : dim // 2]], -1)
        return x * cos + half * sin

    def linear(name, x):
        y = x @ w[name + ".weight"].T
        return y + w[name + ".bias"] if name + ".bias" in w else y

    x = w["model.embed_tokens.weight"][ids]
    hidden = [x]
    for n, window in enumerate(windows(c)):
        at = f"model.layers.{n}."
        h = norm(x, w[at + "input_layernorm.weight"], eps)
        q = linear(at + "self_attn.q_proj", h).reshape(-1, heads, dim)
        k = linear(at + "self_attn.k_proj", h).reshape(-1, kv, dim)
        v = linear(at + "self_attn.v_proj", h).reshape(-1, kv, dim)
        if c["model_type"] == "qwen3":
            q, k = norm(q, w[at + "self_attn.q_norm.weight"], eps), norm(k, w[at + "self_attn.k_norm.weight"], eps)
        q, k = turn(q), turn(k)
        k, v = np.repeat(k, heads // kv, 1), np.repeat(v, heads // kv, 1)
        s = np.einsum("ihd,jhd->hij", q, k) / math.sqrt(dim)
        gap = positions[:, None] - positions[None]
        seen = gap >= 0
        if window:
            seen &= gap < window
        s = np.where(seen[None], s, -np.inf)
        p = np.exp(s - s.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        x = x + linear(at + "self_attn.o_proj", np.einsum("hij,jhd->ihd", p, v).reshape(len(ids), -1))
        h = norm(x, w[at + "post_attention_layernorm.weight"], eps)
        gate = activation(c["hidden_act"], linear(at + "mlp.gate_proj", h))
        x = x + linear(at + "mlp.down_proj", gate * linear(at + "mlp.up_proj", h))
        hidden.append(x)
    head = w["lm_head.weight"] if "lm_head.weight" in w else w["model.embed_tokens.weight"]  # tied
    return norm(x, w["model.norm.weight"], eps) @ head.T, hidden


MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def draw_adapter(rng, draw, c, w, folder):
    """writes a PEFT adapter; returns its config, what it makes of the tensors of its file, and the tensors: a function
    (tensors) -> weights with the adapter merged in"""
    names = rng.sample(MODULES, rng.randrange(1, 8))
    tied, table, head = c["tie_word_embeddings"], "model.embed_tokens", "lm_head"
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

    def ends(module, names):
        return any(module == n or module.endswith("." + n) for n in names)

    def chosen(pattern, module, default):
        for key, value in pattern.items():
            if re.match(rf"(.*\.)?({key})$", module):
                return value
        return default

    def is_whole(module):
        return any(re.match(rf"(^|.*\.){m}($|\..*)", module) for m in whole)

    def is_target(module):
        targets, excluded = config["target_modules"], config.get("exclude_modules", [])
        if re.fullmatch(excluded, module) if isinstance(excluded, str) else ends(module, excluded):
            return False
        if is_whole(module):
            return False
        if targets == "all-linear":
            return module not in (table, head)
        if isinstance(targets, str):
            return bool(re.fullmatch(targets, module))
        if module in targets or not ends(module, targets) or "layers_to_transform" not in config:
            return ends(module, targets)
        patterns = config.get("layers_pattern") or ["[^.]*"]
        for pattern in [patterns] if isinstance(patterns, str) else patterns:
            found = re.match(rf".*?\.{pattern}\.(\d+)\.", module)
            if found:
                chosen_layers = config["layers_to_transform"]
                return int(found[1]) in (chosen_layers if isinstance(chosen_layers, list) else [chosen_layers])
        return False

    modules = [key[: -len(".weight")] for key in w if w[key].ndim == 2 and key.endswith(".weight")]
    if tied:
        modules.append(head)
    base = dict(w, **{head + ".weight": w[table + ".weight"]}) if tied else w
    tensors, kinds = {}, {}
    for module in modules:
        rows, columns = base[module + ".weight"].shape
        at = f"base_model.model.{module}."
        r = chosen(config["rank_pattern"], module, config["r"])

        def normal(*shape):
            return (0.2 * draw.standard_normal(shape)).astype("float32")

        if is_whole(module):
            kinds[module] = "whole"
            tensors[at + "weight"] = normal(rows, columns)
        elif is_target(module) and module == table:
            kinds[module] = "table"
            tensors[at + "lora_embedding_A"], tensors[at + "lora_embedding_B"] = normal(r, rows), normal(columns, r)
            if config["use_dora"]:
                tensors[at + "lora_magnitude_vector"] = draw.uniform(0.5, 2, columns).astype("float32")
        elif is_target(module):
            kinds[module] = "linear"
            tensors[at + "lora_A.weight"], tensors[at + "lora_B.weight"] = normal(r, columns), normal(rows, r)
            if config["use_dora"]:
                tensors[at + "lora_magnitude_vector"] = draw.uniform(0.5, 2, rows).astype("float32")
        if module in (table, head) and kinds.get(module) in ("table", "linear") and rng.random() < 0.5:
            tensors[at + "base_layer.weight"] = base[module + ".weight"].astype("float32")
    tokens = config.get("trainable_token_indices")
    if kinds.get(table) or is_target(table):
        config["trainable_token_indices"] = tokens = None
    if tokens:
        tokens = tokens if isinstance(tokens, list) else tokens["embed_tokens"]
        kinds[table] = "tokens"
        tensors[f"base_model.model.{table}.token_adapter.trainable_tokens_delta"] = normal(len(tokens), w[table + ".weight"].shape[1])
    follows = tied and head not in kinds and (tokens or config["ensure_weight_tying"]) and table in kinds

    def merge(tensors, w=w):
        merged = dict(w, **{head + ".weight": w[table + ".weight"]}) if tied else dict(w)
        for module, kind in kinds.items():
            at, key = f"base_model.model.{module}.", module + ".weight"
            if kind == "whole":
                merged[key] = tensors[at + "weight"].astype("float64")
                continue
            if kind == "tokens":
                merged[key] = merged[key].copy()
                merged[key][tokens] = tensors[at + "token_adapter.trainable_tokens_delta"]
                continue
            r = chosen(config["rank_pattern"], module, config["r"])
            scale = chosen(config["alpha_pattern"], module, config["lora_alpha"]) / (math.sqrt(r) if config["use_rslora"] else r)
            a, b = (tensors[at + n].astype("float64") for n in (["lora_embedding_A", "lora_embedding_B"] if kind == "table" else ["lora_A.weight", "lora_B.weight"]))
            merged[key] = merged[key] + scale * ((b @ a).T if kind == "table" else b @ a)
            if config["use_dora"]:  # a table's columns, a Linear's rows
                m = tensors[at + "lora_magnitude_vector"]
                over = m / np.linalg.norm(merged[key], axis=0 if kind == "table" else 1)
                merged[key] = merged[key] * (over if kind == "table" else over[:, None])
        if follows:
            merged[head + ".weight"] = merged[table + ".weight"]
        return merged

    if not tensors:
        return None
    os.makedirs(folder)
    with open(f"{folder}/adapter_config.json", "w") as f:
        json.dump(config, f)
    write_safetensors(f"{folder}/adapter_model.safetensors", tensors)
    return config, merge, tensors


def loss_of(c, w, rows, length):
    total, count = 0.0, 0
    for ids, positions in rows:
        z, _ = forward(c, w, ids, positions, length)
        z = z[:-1] - z[:-1].max(-1, keepdims=True)
        logp = z - np.log(np.exp(z).sum(-1, keepdims=True))
        total -= logp[np.arange(len(ids) - 1), ids[1:]].sum()
        count += len(ids) - 1
    return total / count


def wrong_slope(got, size, slope, draw, weights, floor=1e-7):
    """whether `got` is further from the slope than f32 explains: a gradient that moves when weights move in their last
    bit cannot be known better than that. slope(weights) gives the true one."""
    true = slope(weights)
    if abs(got - true) <= 1e-4 * size + floor:
        return None
    moved = [slope({k: a * (1 + 6e-8 * draw.standard_normal(a.shape)) for k, a in weights.items()}) for _ in range(4)]
    if abs(got - true) <= 1e-4 * size + 20 * max(abs(m - true) for m in moved):
        return None
    return f"{got} along a direction where the loss has slope {true} (norm {size:.3g}, floor {floor:.3g})"


def report(number, c, bad):
    for line in bad:
        print(f"case {number}: {line}")
    if bad:
        print(f"case {number} is {json.dumps(c)}")
    return not bad


def case(pmetal, folder, number, rng):
    c = draw_config(rng)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    with open(f"{folder}/config.json", "w") as f:
        json.dump(c, f)

    def run(*args):
        done = subprocess.run([pmetal, *args], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(args)}: {done.stderr.strip()[-500:]}")

    run("init", "--random-model", f"{folder}/config.json", "--output", f"{folder}/model", "--dtype", "f32")
    path = f"{folder}/model/model.safetensors"
    weights = read_safetensors(path)
    draw = np.random.default_rng(number)
    for name in weights:  # norms and biases that are not 1 and 0
        if weights[name].ndim == 1:
            weights[name] = (weights[name] + 0.3 * draw.standard_normal(weights[name].shape)).astype("float32")
    dtype = rng.choice(["F32", "F32", "F16", "BF16"])
    weights = {name: round_to(dtype, a) for name, a in weights.items()}
    write_model(f"{folder}/model", weights, dtype, min(rng.choice([1, 1, 2, 3]), len(weights)))
    w = {name: a.astype("float64") for name, a in weights.items()}

    columns = rng.choice([5, 12, 23])
    lengths = [columns, rng.randrange(3, columns + 1)]
    ids = draw.integers(0, c["vocab_size"], (2, columns))
    mask = np.ones((2, columns), "int64")
    left = rng.random() < 0.5
    if left:
        mask[1, : columns - lengths[1]] = 0
    else:
        mask[1, lengths[1] :] = 0
    labels = np.where(mask == 1, ids, -100)
    labels[1, np.argmax(mask[1])] = -100 if left else labels[1, 0]
    write_safetensors(f"{folder}/in.safetensors", {"input_ids": ids, "attention_mask": mask, "labels": labels})
    names = [n for n in w if n.endswith(("k_proj.weight", "down_proj.weight", "input_layernorm.weight"))][:3]
    run("probe", "--model", f"{folder}/model", "--inputs", f"{folder}/in.safetensors", "--dtype", "f32", "--device", DEVICE, "--output",
        f"{folder}/out.safetensors", "--hidden-states", "--loss", "--grads", ",".join(names))
    out = read_safetensors(f"{folder}/out.safetensors")

    bad = []

    def near(what, got, want, tolerance):
        worst = np.abs(got - want).max() / max(np.abs(want).max(), 1e-30)
        if not worst <= tolerance:
            bad.append(f"{what} differs by {worst:.2e} of the largest entry")

    rows = [(ids[b][mask[b] == 1], np.nonzero(mask[b])[0]) for b in range(2)]
    for b, (row, positions) in enumerate(rows):
        z, hidden = forward(c, w, row, positions, columns)
        seen = mask[b] == 1
        near(f"row {b}: logits", out["logits"][b][seen], z, 1e-4)
        for n, h in enumerate(hidden):
            near(f"row {b}: what leaves layer {n}", out[f"hidden_states.{n}"][b][seen], h, 1e-4)
        if np.abs(out["logits"][b][~seen]).sum():
            bad.append(f"row {b}: padding is not zero in the output")
    near("loss", out["loss"].reshape(()), np.float64(loss_of(c, w, rows, columns)), 1e-5)
    for name in names if c["hidden_act"] != "relu" else []:  # relu's kinks spoil differences
        direction = draw.standard_normal(w[name].shape)
        step = 1e-6

        def slope(v):
            return sum(k * loss_of(c, {**v, name: v[name] + k * step * direction}, rows, columns) for k in (1, -1)) / (2 * step)

        grad = out["grad." + name].astype("float64")
        wrong = wrong_slope((grad * direction).sum(), np.linalg.norm(grad), slope, draw, w)
        if wrong:
            bad.append(f"gradient of {name}: {wrong}")

    # a PEFT adapter beside the weights, and merged into them
    adapted = draw_adapter(rng, draw, c, w, f"{folder}/adapter")
    if adapted:
        run("fuse", "--model", f"{folder}/model", "--lora", f"{folder}/adapter", "--output", f"{folder}/fused")
        config, merge, tensors = adapted
        merged = merge(tensors)
        # what is fused has the type of the checkpoint; a sum at the edge of two of its values may go the other way
        rounded = {name: round_to(dtype, a.astype("float32")).astype("float64") for name, a in merged.items()}
        for kind, weights, tolerance, more in (
            ("adapter", merged, 1e-4, ["--model", f"{folder}/model", "--adapter", f"{folder}/adapter"]),
            ("fused", rounded, 1e-4 if dtype == "F32" else 2e-3, ["--model", f"{folder}/fused"]),
        ):
            wants = [forward(c, weights, row, positions, columns)[0] for row, positions in rows]
            run("probe", *more, "--inputs", f"{folder}/in.safetensors", "--dtype", "f32", "--device", DEVICE, "--output", f"{folder}/out.safetensors")
            out = read_safetensors(f"{folder}/out.safetensors")
            for b in range(2):
                near(f"{kind} {json.dumps(config)}, row {b}: logits", out["logits"][b][mask[b] == 1], wants[b], tolerance)

        # the gradients of some of its tensors; DoRA holds its norms constant, which differences do not
        names = sorted(n for n in tensors if "base_layer" not in n and "token_adapter" not in n)
        if names and not config["use_dora"] and c["hidden_act"] != "relu":
            run("probe", "--model", f"{folder}/model", "--adapter", f"{folder}/adapter", "--inputs", f"{folder}/in.safetensors", "--dtype",
                "f32", "--device", DEVICE, "--output", f"{folder}/out.safetensors", "--grads", ",".join(names))
            out = read_safetensors(f"{folder}/out.safetensors")
            # a saturated softmax leaves queries and keys the difference of numbers as large as the values' gradients
            floor = 3e-6 * max(np.linalg.norm(out["grad." + n].astype("float64")) for n in names)
            for name in sorted({rng.choice(names), *[n for n in names if "embed" in n]}):
                direction = draw.standard_normal(tensors[name].shape)

                def slope(v):
                    by = 1e-6 * direction
                    values = [loss_of(c, merge({**v, name: v[name] + k * by}, v), rows, columns) for k in (1, -1)]
                    return (values[0] - values[1]) / 2e-6

                grad = out["grad." + name].astype("float64")
                wrong = wrong_slope((grad * direction).sum(), np.linalg.norm(grad), slope, draw, {**w, **tensors}, floor)
                if wrong:
                    bad.append(f"adapter {json.dumps(config)}: gradient of {name}: {wrong}")

    # greedy: the argmax at each step, as long as it is clear. Remembered keys keep the frequencies of their time, so
    # scalings that follow the length are not a function of the sequence alone.
    kind = (c.get("rope_parameters") or c.get("rope_scaling") or {}).get("rope_type")
    if kind in ("dynamic", "longrope"):
        return report(number, c, bad)
    prompt = rows[0][0]
    run("probe", "--model", f"{folder}/model", "--input-ids", ",".join(map(str, prompt)), "--dtype", "f32", "--device", DEVICE, "--generate",
        "12", "--output", f"{folder}/out.safetensors")
    got = list(read_safetensors(f"{folder}/out.safetensors")["generated"].reshape(-1))[-12:]
    known = list(prompt)
    for n, token in enumerate(got):
        z = forward(c, w, np.array(known), np.arange(len(known)), len(known))[0][-1]
        first, second = np.sort(z)[::-1][:2]
        if first - second < 1e-4 * np.abs(z).max():
            break
        if token != z.argmax():
            bad.append(f"token {n} of the continuation is {token}, not {z.argmax()}")
            break
        known.append(int(token))
    return report(number, c, bad)


def main():
    pmetal, scratch = sys.argv[1:3]
    cases = int(sys.argv[3]) if len(sys.argv) > 3 else 60
    seed = int(sys.argv[4]) if len(sys.argv) > 4 else 1
    good = sum(case(pmetal, f"{scratch}/decoder", n, random.Random(seed * 100003 + n)) for n in range(cases))
    shutil.rmtree(f"{scratch}/decoder", ignore_errors=True)
    print(f"decoder: {good} of {cases} random models equal the NumPy decoder")
    sys.exit(good != cases)


main()
