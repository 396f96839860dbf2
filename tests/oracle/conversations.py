"""Renders random conversations with the released templates of tests/data/templates, by python3-jinja2 and by our runner:
roles in any order, fields missing or of odd types, tools, calls, reasoning. Usage: conversations.py RUNNER COUNT"""
import glob
import json
import os
import random
import subprocess
import sys

sys.argv, arguments = [sys.argv[0]], sys.argv[1:]
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
from jinja import NOW, environment  # noqa: E402

choice, chance = random.choice, lambda p: random.random() < p
TEXTS = ["Hi", "", "  spaced \n", "你好 \"q\" 'x' <b>&", "multi\n\nline\n", "<think>\nt\n</think>\n\nanswer", "</think>",
         "a</think>b", "<think>x", "{\"a\": 1}", "[INST] x", "é\u2028é\ttab", "x" * 50]


def value(depth=0):
    kind = random.random()
    if kind < .3:
        return choice(TEXTS)
    if kind < .5:
        return choice([1, -5, 0, 3.5, 1e20, True, False, None, 2**40, 1e-9])
    if depth < 3 and kind < .75:
        return [value(depth + 1) for _ in range(random.randint(0, 3))]
    if depth < 3:
        return {choice(["a", "type", "name", "items", "text", "k y"]): value(depth + 1) for _ in range(random.randint(0, 3))}
    return "v"


def content():
    kind = random.random()
    if kind < .65:
        return choice(TEXTS)
    if kind < .75:
        return None
    if kind < .9:
        parts = [{"type": "text", "text": choice(TEXTS)}, {"type": "image"}, {"type": "audio"}, choice(TEXTS)]
        return [choice(parts) for _ in range(random.randint(0, 3))]
    return value()


def schema(depth=0):
    kind = choice(["string", "integer", "boolean", "object", "array", ["string", "null"]])
    out = {"type": kind if depth else "object"}
    if chance(.6):
        out["description"] = choice(TEXTS)
    if kind == "object" or depth == 0:
        out["properties"] = {k: schema(depth + 1) if depth < 2 else {"type": "string"}
                             for k in random.sample(["a", "b", "city", "default"], random.randint(0, 3))}
    if kind == "array":
        out["items"] = {"type": "string"} if chance(.8) else {}
    if chance(.2):
        out["enum"] = ["x", "y", 1]
    return out


def tool():
    function = {"name": choice(["f", "get_weather", "browser.search"])}
    if chance(.9):
        function["description"] = choice(TEXTS)
    if chance(.9):
        function["parameters"] = schema()
    return {"type": "function", "function": function} if chance(.9) else function


def call():
    function = {"name": choice(["f", "get_weather"]), "arguments": choice([{"a": value()}, {}, "{\"a\": 1}"])}
    out = {"type": "function", "function": function}
    if chance(.8):
        out["id"] = choice(["call00001", "c2", "functions.f:0"])
    return out if chance(.9) else function


def message(role):
    out = {"role": role}
    if chance(.95):
        out["content"] = content()
    if role == "assistant":
        if chance(.35):
            out["tool_calls"] = [call() for _ in range(random.randint(0, 2))]
        if chance(.3):
            out[choice(["reasoning_content", "thinking", "reasoning"])] = choice(TEXTS)
    if role == "tool":
        out.update({k: v for k, v in (("tool_call_id", "call00001"), ("name", "f")) if chance(.75)})
    return out


def messages():
    roles = [choice(["system", "developer"])] if chance(.5) else []
    for _ in range(random.randint(0, 3)):
        roles += ["user"] + ["assistant"] * chance(.9) + ["tool", "assistant"] * chance(.3)
    if chance(.15):
        random.shuffle(roles)
    return [message(role) for role in roles]


def main():
    random.seed(20260304)
    files = sorted(glob.glob(os.path.join(HERE, "../data/templates/*.jinja")))
    sources = {f: open(f, newline="", encoding="utf-8").read() for f in files}
    env = environment()
    compiled = {f: env.from_string(s) for f, s in sources.items()}
    rows = []
    for _ in range(int(arguments[1])):
        context = {"messages": messages(), "tools": choice([None, None, [tool() for _ in range(random.randint(0, 2))]]),
                   "documents": choice([None, [{"title": "T", "text": "x"}]]), "add_generation_prompt": chance(.5),
                   "bos_token": "<s>", "eos_token": "</s>"}
        extra = {"enable_thinking": chance(.5), "reasoning_effort": choice(["low", "high", None]), "thinking": True,
                 "tool_choice": "auto", "functions": "[]", "controls": {"length": "short"}, "custom_tools": value()}
        context.update({k: v for k, v in extra.items() if chance(.15)})
        rows.append((choice(files), context))
    lines = [json.dumps({"template": sources[f], "context": c, "now": NOW.isoformat()}) for f, c in rows]
    run = subprocess.run([arguments[0]], input="\n".join(lines) + "\n", capture_output=True, text=True, check=True)
    answers = run.stdout.split("\n")[:-1]
    assert len(answers) == len(rows)
    bad = rendered = 0
    for (file, context), line in zip(rows, answers):
        ours = json.loads(line)
        try:
            expected = compiled[file].render(context)
            rendered += 1
        except Exception:  # the reference refuses: so must we
            expected = None
        if ours.get("text") != expected:
            bad += 1
            print(f"{os.path.basename(file)} {json.dumps(context)}\n   ours     {ours}\n   expected {expected!r}")
    print(f"{len(rows)} conversations, {rendered} of them rendered, {bad} different")
    sys.exit(1 if bad or rendered < len(rows) / 4 else 0)


main()
