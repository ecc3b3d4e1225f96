#!/usr/bin/env python3
"""Forward passes or training steps with PyTorch, for `biassweep-bench bars`.

Does one for each line of standard input, on the batch whose number the line holds, and answers with
its seconds. At the end of the input it prints the peak resident memory in MiB.

Without --data a batch is random tokens with the loss at all positions. With --data, a JSON file of
batches of items {"tokens", "answer_start"}, it is what a training script does with such items: pad
the batch, mask all labels but the answer's, compute all logits.

Needs torch and transformers, and peft for --mode lora.
"""

import argparse
import json
import sys
import time

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("--mode", choices=["forward", "lora", "full"], required=True)
parser.add_argument("--model", required=True, help="tiny, or a Hugging Face directory or name")
parser.add_argument("--batch", type=int, default=8)
parser.add_argument("--seq", type=int, default=64)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--rank", type=int, default=8)
parser.add_argument("--data", help="file of batches")
arguments = parser.parse_args()

torch.set_num_threads(arguments.threads)
torch.manual_seed(0)
if arguments.model == "tiny":
    model = LlamaForCausalLM(
        LlamaConfig(
            hidden_size=128,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=4,
            intermediate_size=344,
            vocab_size=4096,
            max_position_embeddings=2048,
            tie_word_embeddings=False,
        )
    )
else:
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32)
vocabulary = model.config.vocab_size
if arguments.mode == "lora":
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(
        model,
        LoraConfig(
            r=arguments.rank,
            lora_alpha=2 * arguments.rank,
            target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
            task_type="CAUSAL_LM",
        ),
    )
training = arguments.mode != "forward"
model.train(training)
if training:
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # The fused form is the faster one, and the bar for full fine-tuning names it.
    optimizer = torch.optim.AdamW(
        trainable, lr=1e-4, fused=arguments.mode == "full" and arguments.model != "tiny"
    )


def padded(items):
    """Token ids, attention mask and labels of a batch, (items, longest)."""
    longest = max(len(item["tokens"]) for item in items)
    ids = torch.zeros((len(items), longest), dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for row, item in enumerate(items):
        tokens, answer = torch.tensor(item["tokens"]), item["answer_start"]
        ids[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = 1
        labels[row, answer : len(tokens)] = tokens[answer:]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


if arguments.data:
    with open(arguments.data) as file:
        batches = [padded(items) for items in json.load(file)]
else:
    ids = torch.randint(0, vocabulary, (arguments.batch, arguments.seq))
    batches = [{"input_ids": ids, "labels": ids} if training else {"input_ids": ids}]


def step(batch):
    if not training:
        with torch.inference_mode():
            return model(**batch, use_cache=False).logits[0, 0, 0].item()
    loss = model(**batch, use_cache=False).loss
    loss.backward()
    if arguments.data:
        torch.nn.utils.clip_grad_norm_(trainable, 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item()


def status(key):
    try:
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) / 1024 for line in file if line.startswith(key))
    except (OSError, StopIteration):
        return 0.0


try:
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # a new measurement of the peak, loading left out
except OSError:
    pass
print("ready", flush=True)
for line in sys.stdin:
    start = time.perf_counter()
    step(batches[int(line) % len(batches)])
    print(time.perf_counter() - start, flush=True)
print(status("VmHWM"), flush=True)
