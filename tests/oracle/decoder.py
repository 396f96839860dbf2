"""A decoder in NumPy, in float64, beside the program: random shapes of the four families, random weights written by
`pmetal init`, right and left padding, windows, rope scalings, biases, tied and untied heads.

usage: decoder.py PMETAL SCRATCH [CASES [SEED]]
Compares `pmetal probe` in f32: logits and hidden states within 1e-4 of the largest entry, the loss within 1e-5, three
gradients with central differences along a random direction, logits with a random PEFT adapter beside the weights and
fused into them, and the greedy continuation. PMETAL_TEST_DEVICE names
another device than the CPU. Prints what differs and exits with 1.
"""

import json
import math
import os
import random
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


def draw_config(rng):
    family = rng.choice(["llama", "mistral", "qwen2", "qwen3"])
    kv = rng.choice([1, 2, 3])
    heads = kv * rng.choice([1, 2, 3, 4])
    head_dim = rng.choice([8, 12, 16, 20, 32])
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
        c["hidden_size"] = rng.choice([24, 40, 64, 72])
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
    head = w["model.embed_tokens.weight"] if c["tie_word_embeddings"] else w["lm_head.weight"]
    return norm(x, w["model.norm.weight"], eps) @ head.T, hidden


def draw_adapter(rng, draw, c, w, folder):
    """writes a PEFT adapter; returns the weights with it merged in"""
    names = rng.sample(["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], rng.randrange(1, 8))
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": None,
        "bias": "none",
        "r": rng.choice([1, 4, 7, 16]),
        "lora_alpha": rng.choice([1, 8, 12.5, 32]),
        "lora_dropout": rng.choice([0.0, 0.1]),
        "target_modules": names,
        "use_rslora": rng.random() < 0.4,
        "use_dora": rng.random() < 0.4,
        "rank_pattern": {},
        "alpha_pattern": {},
    }
    if rng.random() < 0.4:
        config["rank_pattern"] = {names[0]: 3, "layers.0.self_attn.v_proj": 5}
    if rng.random() < 0.4:
        config["alpha_pattern"] = {names[-1]: 6}
    if rng.random() < 0.3:
        config["layers_to_transform"] = [rng.randrange(c["num_hidden_layers"])]
    if rng.random() < 0.3:
        config["exclude_modules"] = [f"model.layers.0.{'self_attn' if names[0][0] in 'qkvo' else 'mlp'}.{names[0]}"]

    def chosen(pattern, module, default):
        for key, value in pattern.items():
            if module == key or module.endswith("." + key):
                return value
        return default

    tensors, merged = {}, dict(w)
    for key in w:
        module = key[: -len(".weight")]
        name, parts = module.rsplit(".", 1)[-1], module.split(".")
        if not key.endswith(".weight") or name not in names:
            continue
        if "layers_to_transform" in config and int(parts[2]) not in config["layers_to_transform"]:
            continue
        if module in config.get("exclude_modules", []):
            continue
        r = chosen(config["rank_pattern"], module, config["r"])
        alpha = chosen(config["alpha_pattern"], module, config["lora_alpha"])
        rows, columns = w[key].shape
        a = (0.3 * draw.standard_normal((r, columns))).astype("float32")
        b = (0.3 * draw.standard_normal((rows, r))).astype("float32")
        at = f"base_model.model.{module}."
        tensors[at + "lora_A.weight"], tensors[at + "lora_B.weight"] = a, b
        scale = alpha / (math.sqrt(r) if config["use_rslora"] else r)
        merged[key] = w[key] + scale * b.astype("float64") @ a.astype("float64")
        if config["use_dora"]:
            m = draw.uniform(0.5, 2, rows).astype("float32")
            tensors[at + "lora_magnitude_vector"] = m
            merged[key] = merged[key] * (m / np.linalg.norm(merged[key], axis=1))[:, None]
    if not tensors:
        return None
    os.makedirs(folder)
    with open(f"{folder}/adapter_config.json", "w") as f:
        json.dump(config, f)
    write_safetensors(f"{folder}/adapter_model.safetensors", tensors)
    return config, merged


def loss_of(c, w, rows, length):
    total, count = 0.0, 0
    for ids, positions in rows:
        z, _ = forward(c, w, ids, positions, length)
        z = z[:-1] - z[:-1].max(-1, keepdims=True)
        logp = z - np.log(np.exp(z).sum(-1, keepdims=True))
        total -= logp[np.arange(len(ids) - 1), ids[1:]].sum()
        count += len(ids) - 1
    return total / count


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
    write_safetensors(path, weights)
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
        step = 1e-5

        def moved(by):
            return loss_of(c, {**w, name: w[name] + by * direction}, rows, columns)

        slope = (moved(step) - moved(-step)) / (2 * step)
        got = (out["grad." + name].astype("float64") * direction).sum()
        size = np.linalg.norm(out["grad." + name].astype("float64"))
        if abs(got - slope) > 1e-4 * size + 1e-7:
            bad.append(f"gradient of {name}: {got} along a direction where the loss has slope {slope}")

    # a PEFT adapter beside the weights, and merged into them
    adapted = draw_adapter(rng, draw, c, w, f"{folder}/adapter")
    if adapted:
        run("fuse", "--model", f"{folder}/model", "--lora", f"{folder}/adapter", "--output", f"{folder}/fused")
        wants = [forward(c, adapted[1], row, positions, columns)[0] for row, positions in rows]
        for kind, more in (("adapter", ["--model", f"{folder}/model", "--adapter", f"{folder}/adapter"]), ("fused", ["--model", f"{folder}/fused"])):
            run("probe", *more, "--inputs", f"{folder}/in.safetensors", "--dtype", "f32", "--device", DEVICE, "--output", f"{folder}/out.safetensors")
            out = read_safetensors(f"{folder}/out.safetensors")
            for b in range(2):
                near(f"{kind} {json.dumps(adapted[0])}, row {b}: logits", out["logits"][b][mask[b] == 1], wants[b], 1e-4)

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
