"""The decoder of the four families in NumPy, forward and backward, in the type of the weights it is given: float64 is
the truth, float32 shows how far single precision alone leads from it. Nothing here knows the program."""

import math

import numpy as np


def head_dim(c):
    # Qwen3 alone has a width of its own when none is said
    return c.get("head_dim") or (128 if c["model_type"] == "qwen3" else c["hidden_size"] // c["num_attention_heads"])


def windows(c):
    n, family = c["num_hidden_layers"], c["model_type"]
    if family == "mistral":
        return [c.get("sliding_window", 4096) or 0] * n
    if family in ("qwen2", "qwen3") and c.get("use_sliding_window"):
        if "layer_types" in c:
            return [c["sliding_window"] if t == "sliding_attention" else 0 for t in c["layer_types"]]
        return [c["sliding_window"] if i >= c.get("max_window_layers", 28) else 0 for i in range(n)]
    return [0] * n


LONGEST = {"llama": 2048, "mistral": 131072, "qwen2": 32768, "qwen3": 32768}


def rope_frequencies(c, dim, length):
    """inverse frequencies [dim/2] and the factor on cos and sin; `length`: largest position + 1"""
    p = dict(c.get("rope_parameters") or c.get("rope_scaling") or {})
    theta = p.get("rope_theta", c.get("rope_theta", 10000.0))
    kind, longest = p.get("rope_type", p.get("type", "default")), c.get("max_position_embeddings", LONGEST[c["model_type"]])
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

        low, high = turn(p.get("beta_fast", 32)), turn(p.get("beta_slow", 1))
        if p.get("truncate", True):
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, dim - 1)
        ramp = np.clip((np.arange(dim // 2) - low) / ((high - low) or 0.001), 0, 1)
        scale = p.get("attention_factor")
        if not scale and p.get("mscale") and p.get("mscale_all_dim"):
            scale = (0.1 * p["mscale"] * math.log(factor) + 1) / (0.1 * p["mscale_all_dim"] * math.log(factor) + 1)
        scale = scale or 0.1 * math.log(factor) + 1
        return inverse / factor * ramp + inverse * (1 - ramp), scale
    if kind == "longrope":
        old = p["original_max_position_embeddings"]
        factors = np.array(p["long_factor" if length > old else "short_factor"])
        factor = p["factor"]
        scale = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(old))
        return inverse / factors, scale
    return inverse, 1.0


SQRT2, GELU = math.sqrt(2), math.sqrt(2 / math.pi)


def activation(kind, x):
    """value and slope"""
    if kind == "silu":
        s = 1 / (1 + np.exp(-x))
        return x * s, s + x * s * (1 - s)
    if kind == "relu":
        return np.maximum(x, 0), (x > 0).astype(x.dtype)
    if kind == "gelu":
        area = (0.5 * (1 + np.vectorize(math.erf)(x / SQRT2))).astype(x.dtype)
        return x * area, area + x * np.exp(-x * x / 2) / x.dtype.type(math.sqrt(2 * math.pi))
    cubic = x.dtype.type(0.044715)
    t = np.tanh(x.dtype.type(GELU) * (x + cubic * x**3))
    return x / 2 * (1 + t), (1 + t) / 2 + x / 2 * (1 - t * t) * x.dtype.type(GELU) * (1 + 3 * cubic * x * x)


class Norm:
    def __init__(self, x, weight, eps):
        self.x, self.weight = x, weight
        self.r = 1 / np.sqrt((x * x).mean(-1, keepdims=True) + x.dtype.type(eps))
        self.y = x * self.r * weight

    def backward(self, dy):
        """derivatives by x and by the weight"""
        g = dy * self.weight
        dx = self.r * g - self.x * self.r**3 * (g * self.x).mean(-1, keepdims=True)
        return dx, (dy * self.x * self.r).reshape(-1, self.x.shape[-1]).sum(0)


class Forward:
    """one sequence. logits [T, V]; hidden: what enters layer 0 and leaves each layer. backward(d logits, grads) adds the
    gradients of all weights. A tied head is the table unless the weights hold a head of their own."""

    def __init__(self, c, w, ids, positions, length):
        self.c, self.w, self.ids = c, w, ids
        self.heads, self.kv = c["num_attention_heads"], c.get("num_key_value_heads") or c["num_attention_heads"]
        dim = self.dim = head_dim(c)
        eps = c.get("rms_norm_eps", 1e-6)
        x = w["model.embed_tokens.weight"][ids]
        inverse, scale = rope_frequencies(c, dim, length)
        angle = positions[:, None].astype(x.dtype) * inverse[None].astype(x.dtype)  # as Hugging Face's code does
        self.cos, self.sin = ((np.concatenate([f(angle)] * 2, -1)[:, None] * scale).astype(x.dtype) for f in (np.cos, np.sin))
        self.root = x.dtype.type(math.sqrt(dim))
        self.hidden, self.layers = [x], []
        gap = positions[:, None] - positions[None]
        for n, window in enumerate(windows(c)):
            seen = (gap >= 0) & (gap < window) if window else gap >= 0
            x = self.block(f"model.layers.{n}.", x, seen, eps)
            self.hidden.append(x)
        self.head_name = "lm_head.weight" if "lm_head.weight" in w else "model.embed_tokens.weight"
        self.last = Norm(x, w["model.norm.weight"], eps)
        self.logits = self.last.y @ w[self.head_name].T + w.get("lm_head.bias", x.dtype.type(0))

    def linear(self, name, x):
        y = x @ self.w[name + ".weight"].T
        return y + self.w[name + ".bias"] if name + ".bias" in self.w else y

    def turn(self, x):
        half = np.concatenate([-x[..., self.dim // 2 :], x[..., : self.dim // 2]], -1)
        return x * self.cos + half * self.sin

    def turn_back(self, dy):
        s = dy * self.sin
        return dy * self.cos + np.concatenate([s[..., self.dim // 2 :], -s[..., : self.dim // 2]], -1)

    def block(self, at, x, seen, eps):
        w, heads, kv, dim, t = self.w, self.heads, self.kv, self.dim, {}
        t["n1"] = Norm(x, w[at + "input_layernorm.weight"], eps)
        q, k, v = (self.linear(f"{at}self_attn.{n}_proj", t["n1"].y).reshape(len(x), -1, dim) for n in "qkv")
        if self.c["model_type"] == "qwen3":
            t["nq"], t["nk"] = Norm(q, w[at + "self_attn.q_norm.weight"], eps), Norm(k, w[at + "self_attn.k_norm.weight"], eps)
            q, k = t["nq"].y, t["nk"].y
        q = self.turn(q)
        k, v = np.repeat(self.turn(k), heads // kv, 1), np.repeat(v, heads // kv, 1)
        s = np.where(seen[None], np.einsum("ihd,jhd->hij", q, k) / self.root, -np.inf)
        top = s.max(-1, keepdims=True)
        p = np.exp(s - top)
        total = p.sum(-1, keepdims=True)
        p /= total
        # what a backward without a stored matrix sees: probabilities again from the logarithm of the sum
        t["p"] = np.exp(s - (top + np.log(total)))
        t["mixed"] = np.einsum("hij,jhd->ihd", p, v).reshape(len(x), -1)
        t.update(q=q, k=k, v=v)
        x = x + self.linear(at + "self_attn.o_proj", t["mixed"])
        t["n2"] = Norm(x, w[at + "post_attention_layernorm.weight"], eps)
        t["gate"], t["slope"] = activation(self.c.get("hidden_act", "silu"), self.linear(at + "mlp.gate_proj", t["n2"].y))
        t["up"] = self.linear(at + "mlp.up_proj", t["n2"].y)
        self.layers.append((at, t))
        return x + self.linear(at + "mlp.down_proj", t["gate"] * t["up"])

    def backward(self, dz, grads):
        w = self.w

        def add(name, value):
            grads[name] = grads[name] + value if name in grads else value

        def linear(name, x, dy):
            add(name + ".weight", dy.T @ x)
            if name + ".bias" in w:
                add(name + ".bias", dy.sum(0))
            return dy @ w[name + ".weight"]

        add(self.head_name, dz.T @ self.last.y)
        add("lm_head.bias", dz.sum(0))
        dx, dw = self.last.backward(dz @ w[self.head_name])
        add("model.norm.weight", dw)
        for at, t in reversed(self.layers):
            dh = linear(at + "mlp.down_proj", t["gate"] * t["up"], dx)
            dn = linear(at + "mlp.up_proj", t["n2"].y, dh * t["gate"])
            dn = dn + linear(at + "mlp.gate_proj", t["n2"].y, dh * t["up"] * t["slope"])
            d, dw = t["n2"].backward(dn)
            add(at + "post_attention_layernorm.weight", dw)
            dx = dx + d
            do = linear(at + "self_attn.o_proj", t["mixed"], dx).reshape(t["q"].shape)
            dp = np.einsum("ihd,jhd->hij", do, t["v"])
            # the sum of dp * p over the keys, by way of the output
            ds = t["p"] * (dp - (do * t["mixed"].reshape(do.shape)).sum(-1).T[..., None]) / self.root
            dq = self.turn_back(np.einsum("hij,jhd->ihd", ds, t["k"]))
            groups = (len(dx), self.kv, -1, self.dim)  # the heads that share a key
            dk = self.turn_back(np.einsum("hij,ihd->jhd", ds, t["q"]).reshape(groups).sum(2))
            dv = np.einsum("hij,ihd->jhd", t["p"], do).reshape(groups).sum(2)
            if "nq" in t:
                dq, dw = t["nq"].backward(dq)
                add(at + "self_attn.q_norm.weight", dw)
                dk, dw = t["nk"].backward(dk)
                add(at + "self_attn.k_norm.weight", dw)
            d = sum(linear(f"{at}self_attn.{n}_proj", t["n1"].y, g.reshape(len(dx), -1)) for n, g in zip("qkv", (dq, dk, dv)))
            d, dw = t["n1"].backward(d)
            add(at + "input_layernorm.weight", dw)
            dx = dx + d
        table = np.zeros_like(w["model.embed_tokens.weight"])
        np.add.at(table, self.ids, dx)
        add("model.embed_tokens.weight", table)


def loss_and_gradients(c, w, rows, length, dtype):
    """the mean over all predicted tokens of `rows` = [(ids, positions)], and the gradients of all weights"""
    w = {name: a.astype(dtype) for name, a in w.items()}
    count, total, grads = sum(len(ids) - 1 for ids, _ in rows), 0.0, {}
    for ids, positions in rows:
        f = Forward(c, w, ids, positions, length)
        z = f.logits[:-1] - f.logits[:-1].max(-1, keepdims=True)
        logp = z - np.log(np.exp(z).sum(-1, keepdims=True))
        at = np.arange(len(ids) - 1), ids[1:]
        total -= logp[at].sum()
        dz = np.exp(logp)
        dz[at] -= 1
        f.backward(np.concatenate([dz, np.zeros_like(dz[:1])]) / dtype(count), grads)
    return total / count, grads
