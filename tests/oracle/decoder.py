"""A decoder in NumPy, in float64, beside the program: random shapes of the four families, random weights written by
`pmetal init`, right and left padding, windows, rope scalings, biases, tied and untied heads, fields left at their defaults.

usage: decoder.py PMETAL SCRATCH [CASES [SEED [FIRST]]]
Compares `pmetal probe` in f32: logits and hidden states within 1e-4 of the largest entry, the loss within 1e-5, the
gradients of all weights, logits with a random PEFT adapter (of Linears, of the token table and a tied or untied head;
low-rank, whole, single tokens; DoRA) beside the weights and fused into them, gradients of all its tensors, every fused
weight, and the greedy continuation. PMETAL_TEST_DEVICE names another device than the CPU. Prints what differs and exits
with 1.

How near is near? Within the bounds above, or within FACTOR times what the same decoder computed in float32 is away from
float64 when its weights move in their last bit. Where a softmax is saturated, queries' and keys' gradients are small
differences of large numbers; where two keys nearly tie at scores of a hundred, the last bit of a score moves the output:
any float32 program loses that alike. A fused weight may be off by half a unit of its type (one rounding) and by what a
float32 sum of its summands may err, 2^-23 of their absolute values for each.
"""

import json
import os
import random
import shutil
import struct
import subprocess
import sys

import numpy as np

sys.dont_write_bytecode = True
from decoder_adapter import Adapter
from decoder_numpy import Forward, loss_and_gradients

FACTOR = 4
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


def half_unit(dtype, a):
    """how far rounding to a type may move values of this size"""
    digits, least = {"F32": (24, -149), "BF16": (8, -133), "F16": (11, -24)}[dtype]
    return 2.0 ** np.maximum(np.frexp(a)[1] - digits - 1, least - 1)


def read_model(folder):
    """all weights of a checkpoint, in float64"""
    out = {}
    for name in sorted(os.listdir(folder)):
        if name.endswith(".safetensors"):
            out.update(read_safetensors(f"{folder}/{name}"))
    return {name: a.astype("float64") for name, a in out.items()}


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
        "vocab_size": rng.choice([33, 100, 257, 1031]),
        "rms_norm_eps": rng.choice([1e-6, 1e-5]),
        "hidden_act": rng.choice(["silu", "silu", "silu", "gelu", "gelu_pytorch_tanh", "relu"]),
        "tie_word_embeddings": rng.choice([True, False]),
        "max_position_embeddings": rng.choice([16, 64, 4096]),
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
        elif rng.random() < 0.4:
            scaling.update(mscale=rng.choice([1.0, 0.7]), mscale_all_dim=rng.choice([1.0, 0.4]))
        if rng.random() < 0.3:
            scaling.update(truncate=False)
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
        if kind in ("linear", "dynamic", "yarn") and rng.random() < 0.5:  # the oldest spelling
            scaling["type"] = scaling.pop("rope_type")
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
    # what a config does not say
    standard = {"rms_norm_eps": 1e-6, "rope_theta": 10000.0, "hidden_act": "silu", "attention_bias": False, "mlp_bias": False,
                "tie_word_embeddings": False, "sliding_window": 4096, "max_window_layers": 28}
    if family == "llama":
        standard.update(num_key_value_heads=heads, head_dim=c["hidden_size"] // heads)
    for name, value in standard.items():
        if c.get(name) == value and type(c[name]) == type(value) and rng.random() < 0.5:
            del c[name]
    return c


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

    columns = rng.choice([5, 12, 23, 23, 70, 150])  # 64 tokens are a page
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
    names = sorted(w)
    run("probe", "--model", f"{folder}/model", "--inputs", f"{folder}/in.safetensors", "--dtype", "f32", "--device", DEVICE, "--output",
        f"{folder}/out.safetensors", "--hidden-states", "--loss", "--grads", ",".join(names))
    out = read_safetensors(f"{folder}/out.safetensors")

    bad = []

    def in_float32(weights, of):
        """what a float32 program may find: `of` with single weights that moved in their last bit, four times"""
        for _ in range(4):
            yield of({k: (a * (1 + 2.0**-24 * draw.integers(-1, 2, a.shape))).astype("float32") for k, a in weights.items()})

    def near(what, got, want, tolerance, weights, of):
        off, largest = np.abs(got - want).max(), np.abs(want).max()
        if off <= tolerance * largest:
            return
        spread = max(np.abs(v - want).max() for v in in_float32(weights, of))
        if not off <= FACTOR * spread:
            bad.append(f"{what} differs by {off:.2e}, largest entry {largest:.2e}, float32 errs by {spread:.2e}")

    def near_gradients(what, got, weights, names, of=lambda grads: grads):
        """`of` makes the wanted gradients of those of the weights"""
        loss, grads = loss_and_gradients(c, weights, rows, columns, np.float64)
        true, single = of(grads), []
        for name in names:
            if name not in got:
                bad.append(f"{what}: no gradient of {name}")
                continue
            off, largest = np.abs(got[name] - true[name]).max(), np.abs(true[name]).max()
            if off <= 1e-4 * largest:
                continue
            single = single or list(in_float32(weights, lambda w32: of(loss_and_gradients(c, w32, rows, columns, np.float32)[1])))
            spread = max(np.abs(g[name] - true[name]).max() for g in single)
            if not off <= FACTOR * spread:
                bad.append(f"{what}: gradient of {name} differs by {off:.2e}, largest entry {largest:.2e}, float32 errs by {spread:.2e}")
        return loss

    rows = [(ids[b][mask[b] == 1], np.nonzero(mask[b])[0]) for b in range(2)]

    def read_gradients():
        return {name[len("grad.") :]: a for name, a in read_safetensors(f"{folder}/out.safetensors").items() if name.startswith("grad.")}

    for b, (row, positions) in enumerate(rows):
        f = Forward(c, w, row, positions, columns)
        seen = mask[b] == 1
        near(f"row {b}: logits", out["logits"][b][seen], f.logits, 1e-4, w, lambda v: Forward(c, v, row, positions, columns).logits)
        for n, h in enumerate(f.hidden):
            near(f"row {b}: what leaves layer {n}", out[f"hidden_states.{n}"][b][seen], h, 1e-4, w,
                 lambda v: Forward(c, v, row, positions, columns).hidden[n])
        if np.abs(out["logits"][b][~seen]).sum():
            bad.append(f"row {b}: padding is not zero in the output")
    loss = near_gradients("weights", read_gradients(), w, names)
    near("loss", out["loss"].reshape(()), np.float64(loss), 1e-5, w,
         lambda v: loss_and_gradients(c, v, rows, columns, np.float32)[0])

    # a PEFT adapter beside the weights, and merged into them
    adapter = Adapter(rng, draw, c, w)
    if adapter.tensors:
        label = f"adapter {json.dumps(adapter.config)}"
        adapter.write(f"{folder}/adapter", write_safetensors)
        merged, sizes = adapter.merged(), adapter.magnitudes()
        forms = [("beside", merged, ["--model", f"{folder}/model", "--adapter", f"{folder}/adapter"])]
        fuse = ["fuse", "--model", f"{folder}/model", "--lora", f"{folder}/adapter", "--output", f"{folder}/fused"]
        if adapter.has_new_biases():
            if subprocess.run([pmetal, *fuse], capture_output=True).returncode != 1:
                bad.append(f"{label}: fused where a layer has no bias")
        else:
            run(*fuse)
            fused = read_model(f"{folder}/fused")
            forms.append(("fused", fused, ["--model", f"{folder}/fused"]))
            for name in sorted(set(merged) | set(fused)):
                if name not in fused or name not in merged:
                    bad.append(f"{label}: {name} is in {'the sum' if name in merged else 'the fused model'} alone")
                    continue
                # half a unit of the type; what is no sum is only rounded
                slack = half_unit(dtype, merged[name]) + sizes.get(name, 0) * 2.0**-23 * (adapter.rank_of(name) + 2)
                if (np.abs(fused[name] - merged[name]) > slack).any():
                    bad.append(f"{label}: fused {name} differs by {np.abs(fused[name] - merged[name]).max():.2e}")
        for kind, weights, more in forms:
            run("probe", *more, "--inputs", f"{folder}/in.safetensors", "--dtype", "f32", "--device", DEVICE, "--output", f"{folder}/out.safetensors")
            out = read_safetensors(f"{folder}/out.safetensors")
            for b, (row, positions) in enumerate(rows):
                def logits(v):
                    return Forward(c, v, row, positions, columns).logits

                near(f"{label}, {kind}, row {b}: logits", out["logits"][b][mask[b] == 1], logits(weights), 1e-4, weights, logits)

        names = sorted(n for n in adapter.tensors if "base_layer" not in n and "token_adapter" not in n)
        if names:
            run("probe", "--model", f"{folder}/model", "--adapter", f"{folder}/adapter", "--inputs", f"{folder}/in.safetensors", "--dtype",
                "f32", "--device", DEVICE, "--output", f"{folder}/out.safetensors", "--grads", ",".join(names))
            near_gradients(label, read_gradients(), merged, names, adapter.gradients)

    # greedy: the argmax at each step, as long as it is clear. Remembered keys keep the frequencies of their time, so
    # scalings that follow the length are not a function of the sequence alone.
    scaling = c.get("rope_parameters") or c.get("rope_scaling") or {}
    kind = scaling.get("rope_type", scaling.get("type"))
    if kind in ("dynamic", "longrope"):
        return report(number, c, bad)
    prompt = rows[0][0]
    run("probe", "--model", f"{folder}/model", "--input-ids", ",".join(map(str, prompt)), "--dtype", "f32", "--device", DEVICE, "--generate",
        "12", "--output", f"{folder}/out.safetensors")
    got = list(read_safetensors(f"{folder}/out.safetensors")["generated"].reshape(-1))[-12:]
    known = list(prompt)
    for n, token in enumerate(got):
        z = Forward(c, w, np.array(known), np.arange(len(known)), len(known)).logits[-1]
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
    first = int(sys.argv[5]) if len(sys.argv) > 5 else 0
    good = sum(case(pmetal, f"{scratch}/decoder", n, random.Random(seed * 100003 + n)) for n in range(first, first + cases))
    shutil.rmtree(f"{scratch}/decoder", ignore_errors=True)
    print(f"decoder: {good} of {cases} random models equal the NumPy decoder")
    sys.exit(good != cases)


if __name__ == '__main__':
    main()
