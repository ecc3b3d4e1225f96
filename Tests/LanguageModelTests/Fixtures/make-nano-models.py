"""Writes the tiny random models nano_qwen2, nano_qwen3, nano_llama3 and nano_linear (Hugging Face
directories with reference values of transformers) and mixed.gguf (every supported encoding) beside
this file.

Needs torch, transformers, safetensors and gguf. Values are random but every size differs from the
others, so that a transposed or mixed-up axis cannot pass.
"""

import json
import pathlib

import gguf
import numpy as np
import torch
from safetensors.torch import save_file
from transformers import (AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, Qwen2Config,
                          Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM)

HERE = pathlib.Path(__file__).resolve().parent
ADAMW = {"lr": 1e-3, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.01}
SHAPE = dict(vocab_size=56, hidden_size=24, intermediate_size=28, num_hidden_layers=2,
             num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=96,
             rms_norm_eps=1e-5, pad_token_id=None, bos_token_id=0, eos_token_id=1)


def randomise(model, seed):
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator) * 0.15
        parameter.data = 1 + noise if "norm" in name else noise


def tokens(count, length, vocabulary, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, vocabulary, (count, length), generator=generator)


def nano(name, model, seed):
    """Logits, gradients and six AdamW losses of `model` on two rows of tokens."""
    directory = HERE / name
    directory.mkdir(exist_ok=True)
    randomise(model, seed)
    state = {key: value.clone().contiguous() for key, value in model.state_dict().items()
             if not (model.config.tie_word_embeddings and key == "lm_head.weight")}
    save_file(state, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "config.json").write_text(model.config.to_json_string())
    ids = tokens(2, 40, model.config.vocab_size, seed)
    with torch.no_grad():
        save_file({"logits": model(ids).logits.float().contiguous()},
                  directory / "logits.safetensors")
    model = model.double()
    optimizer = torch.optim.AdamW(model.parameters(), lr=ADAMW["lr"], betas=ADAMW["betas"],
                                  eps=ADAMW["eps"], weight_decay=ADAMW["weight_decay"])
    losses = []
    for step in range(6):
        optimizer.zero_grad()
        loss = model(ids, labels=ids).loss
        loss.backward()
        losses.append(loss.item())
        if step == 0:
            save_file({key: value.grad.float().contiguous()
                       for key, value in model.named_parameters()},
                      directory / "grads_step1.safetensors")
        optimizer.step()
    (directory / "reference.json").write_text(json.dumps(
        {"ids": ids.tolist(), "adamw": ADAMW, "losses_before_each_of_6_steps": losses}) + "\n")
    print(name, losses[0], losses[-1])


def blocks(kind, rows, columns, rng):
    """Random blocks of an encoding and what gguf's reference decoder makes of them."""
    size, count = gguf.GGML_QUANT_SIZES[kind][1], rows * columns // gguf.GGML_QUANT_SIZES[kind][0]
    raw = rng.integers(0, 256, (count, size), dtype=np.uint8)
    half = lambda scale: rng.uniform(0.5 * scale, scale, count).astype(np.float16).view(np.uint8)
    if kind == gguf.GGMLQuantizationType.Q4_K:
        raw[:, 0:2] = half(3e-4).reshape(count, 2)
        raw[:, 2:4] = half(2e-3).reshape(count, 2)
    elif kind == gguf.GGMLQuantizationType.Q6_K:
        raw[:, 208:210] = half(1e-4).reshape(count, 2)
    raw = raw.reshape(rows, -1)
    return raw, gguf.dequantize(raw, kind)


def mixed_gguf():
    """A Llama whose tensors use every encoding; logits as transformers reads the file."""
    Q = gguf.GGMLQuantizationType
    rng = np.random.default_rng(5)
    vocabulary, hidden, heads, kv, dim, ffn = 48, 256, 4, 2, 8, 32
    writer = gguf.GGUFWriter(HERE / "mixed.gguf", "llama")
    writer.add_block_count(2)
    writer.add_context_length(64)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(ffn)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv)
    writer.add_key_length(dim)
    writer.add_value_length(dim)
    writer.add_rope_dimension_count(dim)
    writer.add_rope_freq_base(5000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(vocabulary)
    expected = {}

    def add(name, rows, columns, kind):
        if kind in (Q.Q4_K, Q.Q6_K):
            raw, values = blocks(kind, rows, columns, rng)
        else:
            source = (rng.standard_normal((rows, columns)) * 0.08).astype(np.float32)
            if kind == Q.F32:
                raw = values = source
            else:
                raw = gguf.quantize(source, kind)
                values = gguf.dequantize(raw, kind)
        writer.add_tensor(name, raw, raw_dtype=kind)
        expected[name] = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))

    def norm(name):
        values = (1 + 0.1 * rng.standard_normal(hidden)).astype(np.float32)
        writer.add_tensor(name, values)
        expected[name] = torch.from_numpy(values)

    add("token_embd.weight", vocabulary, hidden, Q.Q6_K)
    add("output.weight", vocabulary, hidden, Q.Q8_0)
    norm("output_norm.weight")
    for layer, kinds in enumerate([
            (Q.Q4_K, Q.Q6_K, Q.Q5_0, Q.Q8_0, Q.Q4_K, Q.Q6_K, Q.Q5_0),
            (Q.Q4_0, Q.Q4_1, Q.F16, Q.BF16, Q.Q4_0, Q.Q4_1, Q.F32)]):
        part = lambda name: f"blk.{layer}.{name}.weight"
        norm(part("attn_norm"))
        norm(part("ffn_norm"))
        for name, rows, columns, kind in zip(
                ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"],
                [heads * dim, kv * dim, kv * dim, hidden, ffn, ffn, hidden],
                [hidden, hidden, hidden, heads * dim, hidden, hidden, ffn], kinds):
            add(part(name), rows, columns, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    model = AutoModelForCausalLM.from_pretrained(HERE, gguf_file="mixed.gguf",
                                                 dtype=torch.float32).eval()
    ids = tokens(1, 12, vocabulary, 9)
    with torch.no_grad():
        logits = model(ids).logits
    save_file({"ids": ids.float(), "logits": logits.float().contiguous(),
               "Q4_K": expected["blk.0.attn_q.weight"], "Q6_K": expected["blk.0.attn_k.weight"],
               "Q5_0": expected["blk.0.attn_v.weight"], "Q8_0": expected["blk.0.attn_output.weight"],
               "Q4_0": expected["blk.1.attn_q.weight"], "Q4_1": expected["blk.1.attn_k.weight"]},
              HERE / "mixed.safetensors")
    print("mixed.gguf", logits.std())


rope = lambda **more: {"rope_theta": 1000.0, "rope_type": "default"} | more
nano("nano_qwen2", Qwen2ForCausalLM(Qwen2Config(
    **SHAPE, tie_word_embeddings=True, rope_parameters=rope())).eval(), 2)
nano("nano_qwen3", Qwen3ForCausalLM(Qwen3Config(
    **SHAPE, tie_word_embeddings=False, head_dim=6, rope_parameters=rope())).eval(), 3)
nano("nano_llama3", LlamaForCausalLM(LlamaConfig(
    **SHAPE | {"hidden_size": 32}, tie_word_embeddings=True, rope_parameters=rope(
        rope_type="llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
        original_max_position_embeddings=24))).eval(), 4)
nano("nano_linear", LlamaForCausalLM(LlamaConfig(
    **SHAPE | {"hidden_size": 24}, tie_word_embeddings=False,
    rope_parameters=rope(rope_type="linear", factor=3.0))).eval(), 5)
mixed_gguf()
