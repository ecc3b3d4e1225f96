#!/usr/bin/env python3
"""Generation with transformers, for `biassweep-bench generate --python`.

usage: reference_generate.py MODEL_DIRECTORY THREADS

Reads one JSON object a line from standard input, {"prompts": [[token, ...], ...], "new_tokens": N}
(prompts of equal length), continues the prompts greedily by N tokens with a KV cache in float32, and
answers each with a line {"seconds": ..., "texts": [[token, ...], ...]}. The first line, before any
question, is {"ready": "<versions>"}.
"""
import json
import os
import sys
import time

directory, threads = sys.argv[1], int(sys.argv[2])
os.environ["OMP_NUM_THREADS"] = str(threads)
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import torch
import transformers

torch.set_num_threads(threads)
transformers.logging.set_verbosity_error()
model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
model.eval()
versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
print(json.dumps({"ready": versions}), flush=True)

for line in sys.stdin:
    question = json.loads(line)
    prompts = torch.tensor(question["prompts"])
    count = question["new_tokens"]
    start = time.perf_counter()
    with torch.inference_mode():
        output = model.generate(
            input_ids=prompts, attention_mask=torch.ones_like(prompts), do_sample=False,
            min_new_tokens=count, max_new_tokens=count, use_cache=True, pad_token_id=0)
    seconds = time.perf_counter() - start
    texts = output[:, prompts.shape[1]:].tolist()
    print(json.dumps({"seconds": seconds, "texts": texts}), flush=True)
